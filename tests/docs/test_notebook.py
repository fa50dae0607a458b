"""docs/first_look.ipynb runs from beginning to end, and learns."""

import json
import pydoc
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from sklearn import datasets

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "first_look.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
TEXT = "\n".join("".join(cell["source"]) for cell in CELLS)

# Seen: 97.5 twice, 97.8 with another seed.
ACCURACY = 94.0


def texts(notebook):
    """What its cells print."""
    outputs = (output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def test_links_and_names():
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (NOTEBOOK.parent / link).is_file(), link
    for name in re.findall(r"keras_cnv2(?:\.\w+)+", TEXT):
        assert pydoc.locate(name) is not None, name


def test_no_outputs_are_kept():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_cells(eagerly, monkeypatch):
    """One after the other in this process, on some of the digits, with an epoch each. It is too short to learn."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    digits = datasets.load_digits()
    few = {"images": digits.images[:400], "target": digits.target[:400]}
    monkeypatch.setattr(datasets, "load_digits", lambda: SimpleNamespace(**few))
    cells = ["".join(c["source"]) for c in CELLS if c["cell_type"] == "code"]
    quick = re.sub(r"^epochs(.*) = \d", r"epochs\1 = 1", "\n".join(cells), flags=re.MULTILINE)
    assert quick.count("= 1, 64") == quick.count("epochs = 1\n") == 1
    names = {}
    exec(compile(quick, NOTEBOOK.name, "exec"), names)
    assert 0 <= names["accuracy"] <= 1
    assert names["points"].shape == (80, 2)
    assert names["difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.release
def test_runs(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    manager = pytest.importorskip("ipykernel.kernelspec")
    nbformat = pytest.importorskip("nbformat")
    # The kernel of this interpreter, whatever kernels the user has.
    manager.install(prefix=str(tmp_path / "jupyter"), kernel_name="here")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter" / "share" / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (tmp_path / "work").mkdir()
    nbclient.NotebookClient(
        notebook, kernel_name="here", timeout=600, resources={"metadata": {"path": str(tmp_path / "work")}}
    ).execute()
    printed = texts(notebook)
    assert float(re.search(r"accuracy ([\d.]+)%", printed)[1]) >= ACCURACY
