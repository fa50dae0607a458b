import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import training
from tests.training.runs_in_parts import interrupted
from tests.training.small import finetuning, pretraining
from training.errors import RunError
from training.files import write_json
from training.runs.folder import open_run, read_metrics

ROOT = Path(__file__).parents[3]


def test_new_run_says_what_runs(tmp_path):
    folder = open_run(tmp_path / "runs" / "a", finetuning(seed=3))
    config = json.loads((folder / "config.json").read_text())
    assert (config["kind"], config["seed"], config["epochs"], config["betas"]) == ("Finetuning", 3, 2, [0.9, 0.99])
    assert {"python", "keras_cnv2", "keras", "tensorflow", "numpy"} <= {*config["versions"]}
    assert "cores" in config["system"]["machine"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.json"]


def test_interrupted_run_goes_on(tmp_path):
    interrupted(tmp_path / "a", pretraining())
    (tmp_path / "a" / "log.csv").write_text("x")
    open_run(tmp_path / "a", pretraining())
    assert (tmp_path / "a" / "log.csv").read_text() == "x"


def test_names_of_another_encoding(tmp_path):
    with pytest.raises(RunError, match=r"must have a name in UTF-8. Received: .*\\udce9"):
        training.pretrain(data="digits", runs=tmp_path, name="a\udce9")
    assert [*tmp_path.iterdir()] == []


def test_what_a_killed_process_left_is_no_content_and_goes(tmp_path):
    for left in (".writing-x", "checkpoints/.writing-y"):
        (tmp_path / "a" / left).mkdir(parents=True)
        (tmp_path / "a" / left / "half").write_bytes(b"half")
        open_run(tmp_path / "a", pretraining())
        assert not [*tmp_path.rglob(".writing-*")]


def test_files_are_utf_8_everywhere(tmp_path):
    (tmp_path / "a.json").write_text('["größe"]', "utf-8")
    # Without what the library imports: TensorFlow.
    script = "import sys, types; sys.modules['keras_cnv2'] = package = types.ModuleType('keras_cnv2')\n"
    script += "package.__path__ = ['keras_cnv2']; from training.files import read_json, write_text\n"
    script += "write_text(sys.argv[2], *read_json(sys.argv[1], list))"
    ascii_alone = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", script, tmp_path / "a.json", tmp_path / "b.txt"]
    subprocess.run(command, cwd=ROOT, env=ascii_alone, check=True)
    assert (tmp_path / "b.txt").read_text("utf-8") == "größe"


def test_run_that_never_got_going_begins_anew(tmp_path):
    """As after a mistake in the first command."""
    open_run(tmp_path / "a", pretraining())
    open_run(tmp_path / "a", finetuning(seed=5))
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (config["kind"], config["seed"]) == ("Finetuning", 5)


def test_finished_run_is_refused(tmp_path):
    folder = open_run(tmp_path / "a", pretraining())
    assert read_metrics(folder) is None
    write_json(folder / "metrics.json", {"loss": 1.0})
    assert read_metrics(folder) == {"loss": 1.0}
    with pytest.raises(FileExistsError, match=r"another --name. Received: .*a"):
        open_run(tmp_path / "a", pretraining())


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "x").write_text("1")
    with pytest.raises(FileExistsError, match="other contents than a run"):
        open_run(tmp_path, pretraining())
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_write_json(tmp_path):
    write_json(tmp_path / "x.json", {"a": (1, 2)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
