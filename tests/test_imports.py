"""The direction of imports: nothing of the library stands on the folders around it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imported(path):
    """Top-level names of all packages a file imports, anywhere in it."""
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes), f"{path}: relative import"
    return names_in(nodes)


def names_in(nodes):
    """Top-level names of the packages that some statements import, each by itself."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


FORBIDDEN = {
    "keras_cnv2": {"training", "weights", "tests", "benchmarks", "tensorflow_datasets", "matplotlib", "sklearn"},
    "training": {"weights", "tests", "benchmarks"},
    "weights": {"training", "tests", "benchmarks"},
}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_direction(folder):
    files = [*(ROOT / folder).rglob("*.py")]
    assert files
    wrong = {str(path): found for path in files if (found := FORBIDDEN[folder] & {*imported(path)})}
    assert wrong == {}


def test_training_imports_what_draws_where_it_draws():
    drawing = {"matplotlib", "sklearn"}
    files = {path: ast.parse(path.read_text()) for path in (ROOT / "training").rglob("*.py")}
    assert {str(path): found for path, tree in files.items() if (found := drawing & {*names_in(tree.body)})} == {}


def test_loop_imports_no_tensorflow():
    assert "tensorflow" not in {*imported(ROOT / "training" / "loop.py"), *imported(ROOT / "training" / "recipes.py")}


def test_import_is_light():
    # Counted from what Keras itself imports: matplotlib and scikit-learn, where it finds them.
    code = "import sys, keras; before = {*sys.modules}; import keras_cnv2; print(*{*sys.modules} - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert "keras_cnv2" in loaded
    heavy = {"tensorflow_datasets", "matplotlib", "keras_cv", "keras_hub", "torch", "sklearn", "tqdm"}
    heavy |= {"huggingface_hub", "safetensors"}  # light, but not everywhere, and only where weights are read
    assert loaded & (heavy | {"training", "weights", "tests", "benchmarks"}) == set()
