import dataclasses
import fcntl
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import training
from tests.training.small import finetuning, pretraining
from training.commands.config import read_config
from training.commands.pretrain import Pretrain
from training.errors import RunError
from training.files import write_json
from training.runs.folder import open_run, read_metrics
from training.runs.lock import release

ROOT = Path(__file__).parents[3]


def test_new_run_says_what_runs(tmp_path):
    folder = open_run(tmp_path / "runs" / "a", finetuning(seed=3))
    config = json.loads((folder / "config.json").read_text())
    assert (config["kind"], config["seed"], config["epochs"], config["betas"]) == ("Finetuning", 3, 2, [0.9, 0.99])
    assert {"python", "keras_cnv2", "keras", "tensorflow", "numpy"} <= {*config["versions"]}
    assert "cores" in config["system"]["machine"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.json"]


def interrupted(folder, recipe, found=None):
    """A run that was interrupted after its first checkpoint."""
    open_run(folder, recipe, found)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-0000000001.safetensors").touch()
    return folder


def test_interrupted_run_goes_on(tmp_path):
    interrupted(tmp_path / "a", pretraining())
    (tmp_path / "a" / "log.csv").write_text("x")
    open_run(tmp_path / "a", pretraining())
    assert (tmp_path / "a" / "log.csv").read_text() == "x"


def test_fields_that_recipes_had_not_yet_have_their_defaults(tmp_path):
    path = interrupted(tmp_path / "a", pretraining()) / "config.json"
    config = json.loads(path.read_text())
    for name in ("optimizer", "seed"):
        del config[name]
    path.write_text(json.dumps(config))
    open_run(tmp_path / "a", pretraining())
    with pytest.raises(RunError, match="optimizer: adamw then, muon now"):
        open_run(tmp_path / "a", pretraining(optimizer="muon"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (pretraining(epochs=3, seed=1), "epochs: 2 then, 3 now; seed: 0 then, 1 now"),
        (finetuning(), "kind: Pretraining then, Finetuning now"),
    ],
)
def test_another_recipe_is_refused(tmp_path, other, message):
    interrupted(tmp_path / "a", pretraining())
    before = (tmp_path / "a" / "config.json").read_text()
    with pytest.raises(RunError, match=message):
        open_run(tmp_path / "a", other)
    assert (tmp_path / "a" / "config.json").read_text() == before


class TestChange:
    def test_goes_on_with_another_recipe(self, tmp_path):
        folder = interrupted(tmp_path / "a", pretraining(), {"images": 9})
        before = json.loads((folder / "config.json").read_text())
        open_run(folder, pretraining(epochs=3, base_lr=0.01), {"images": 9}, change=True)
        open_run(folder, pretraining(epochs=3, base_lr=0.01, batch_size=16), change=True)
        config = json.loads((folder / "config.json").read_text())
        assert config.pop("changes") == [
            {"step": 1, "before": {"base_lr": 0.03, "epochs": 2}},
            {"step": 1, "before": {"batch_size": 8}},
        ]
        assert config == before | {"epochs": 3, "base_lr": 0.01, "batch_size": 16}
        open_run(folder, pretraining(epochs=3, base_lr=0.01, batch_size=16))  # by the same command
        assert json.loads((folder / "config.json").read_text()).keys() - before.keys() == {"changes"}

    def test_finished_run_goes_on(self, tmp_path):
        folder = interrupted(tmp_path / "a", pretraining())
        write_json(folder / "metrics.json", {"loss": 1.0})
        with pytest.raises(FileExistsError, match="finished run"):
            open_run(folder, pretraining(epochs=9))
        open_run(folder, pretraining(epochs=9), change=True)
        assert read_metrics(folder) is None
        (change,) = json.loads((folder / "config.json").read_text())["changes"]
        assert change == {"step": 1, "before": {"epochs": 2}, "metrics": {"loss": 1.0}}

    @pytest.mark.parametrize(
        ("fields", "change", "message"),
        [
            ({"epochs": 3}, False, "or --change-recipe to go on.*with epochs: 2 then, 3 now$"),
            ({"epochs": 3, "seed": 1}, False, "another --name. Received.*epochs: 2 then, 3 now; seed: 0 then, 1 now$"),
            (
                {"epochs": 3, "dims": (4, 4, 4, 4)},
                True,
                "change is base_lr, batch_size, .*with dims: .4, 6, 8, 10. then",
            ),
        ],
    )
    def test_the_rest_is_refused(self, tmp_path, fields, change, message):
        folder = interrupted(tmp_path / "a", pretraining())
        before = (folder / "config.json").read_text()
        with pytest.raises(RunError, match=message):
            open_run(folder, pretraining(**fields), change=change)
        assert (folder / "config.json").read_text() == before

    def test_finished_run_without_checkpoints_is_refused(self, tmp_path):
        folder = open_run(tmp_path / "a", pretraining())
        write_json(folder / "metrics.json", {"loss": 1.0})
        with pytest.raises(FileExistsError, match="finished run"):
            open_run(folder, pretraining(epochs=9), change=True)


def test_the_same_data_however_they_are_spelled(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = interrupted(tmp_path / "a", pretraining(data="photos", weights="photos/../link"))
    for data in ("./photos/", str(tmp_path / "photos"), "link", "other/../photos"):
        open_run(folder, pretraining(data=data, weights="photos"))
    with pytest.raises(RunError, match="data: photos then, other now"):
        open_run(folder, pretraining(data="other", weights="photos"))
    assert read_config(folder)["data"] == "photos"
    monkeypatch.chdir(tmp_path / "other")
    assert read_config(folder)["data"] == str(tmp_path / "photos"), "as from here, photos is nothing"
    open_run(folder, pretraining(data="../photos", weights="../link"))


def test_other_data_are_refused(tmp_path):
    found = {"images": 9, "validation_images": 3, "classes": ["ant", "bee"]}
    interrupted(tmp_path / "a", pretraining(), found)
    assert json.loads((tmp_path / "a" / "config.json").read_text())["found"] == found
    open_run(tmp_path / "a", pretraining(), found)
    for other, message in (({"images": 8}, "images: 9 then, 8 now"), ({"classes": ["bee", "ant"]}, "classes: .*then")):
        with pytest.raises(RunError, match=f"The data are not those.*another --name. Received: .*{message}"):
            open_run(tmp_path / "a", pretraining(), found | other)


@pytest.mark.parametrize("names", [["class 0", "class 1"], ["0", "1"]])
def test_classes_that_nobody_named_were_called_otherwise(tmp_path, names):
    interrupted(tmp_path / "a", pretraining(), {"classes": ["0", "1"]})
    open_run(tmp_path / "a", pretraining(), {"classes": names})
    with pytest.raises(RunError, match="The data are not those"):
        open_run(tmp_path / "a", pretraining(), {"classes": ["1", "0"]})


# Locks a folder as a run does, without what a run imports.
LOCK = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
print("there", flush=True)
input()
"""


def test_run_of_another_process_is_refused(tmp_path):
    """And another process is refused a run of this one."""
    (tmp_path / "a").mkdir()
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", LOCK, tmp_path / "a"]
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == b"there\n"
        with pytest.raises(RunError, match="Another process or thread is training the run of this name"):
            open_run(tmp_path / "a", pretraining())
        other.communicate(b"\n")
    open_run(tmp_path / "a", pretraining())
    with subprocess.Popen(command, **pipes) as other:
        assert b"BlockingIOError" in other.communicate(b"\n")[1]


def test_run_of_another_thread_is_refused_until_it_ends(tmp_path):
    with ThreadPoolExecutor(1) as other:
        other.submit(open_run, tmp_path / "a", pretraining()).result()
        with pytest.raises(RunError, match="Another process or thread is training the run of this name"):
            open_run(tmp_path / "a", pretraining())
        release(tmp_path / "a")  # not this thread's to release
        assert locked(tmp_path / "a")
    open_run(tmp_path / "a", pretraining())
    assert locked(tmp_path / "a")


def test_run_is_released_at_its_end(tmp_path, monkeypatch):
    """Another process may go on with it then: this one may be a notebook."""

    def train(run, *_):
        open_run(run.folder, run.recipe)
        assert locked(run.folder)
        (run.folder / "tensorboard").mkdir(exist_ok=True)  # it has begun
        raise RunError("It ends.")

    monkeypatch.setattr(Pretrain, "train", train)
    for _ in range(2):
        with pytest.raises(RunError, match="It ends"):
            training.pretrain(data="digits", runs=tmp_path, name="a")
        assert not locked(tmp_path / "a")


def test_of_a_run_that_never_began_nothing_stays(tmp_path):
    given = {"data": "digits", "depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "runs": tmp_path, "name": "a"}
    with pytest.raises(ValueError, match="Published weights are for the sizes"):
        training.finetune(weights="nowhere", image_size=32, resize="squash", **given)
    assert not (tmp_path / "a").exists()


def test_what_others_began_stays(tmp_path, monkeypatch):
    """A run that was killed before its first checkpoint has a configuration to take up again."""
    open_run(tmp_path / "a", pretraining())
    release(tmp_path / "a")

    def train(run, *_):
        open_run(run.folder, run.recipe)
        raise RunError("It ends.")

    monkeypatch.setattr(Pretrain, "train", train)
    with pytest.raises(RunError, match="It ends"):
        training.pretrain(data="digits", runs=tmp_path, name="a")
    assert (tmp_path / "a" / "config.json").exists()


def locked(folder):
    """Whether nobody else may have a run's folder; such a lock is of an open file, not of a process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


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


def test_damaged_configuration_is_told(tmp_path):
    interrupted(tmp_path / "a", pretraining())
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"not a JSON file.*config\.json"):
        open_run(tmp_path / "a", pretraining())


def test_other_versions_are_warned_of(tmp_path, caplog):
    folder = interrupted(tmp_path / "a", pretraining())
    config = json.loads((folder / "config.json").read_text())
    config["versions"]["keras"] = "2.0"
    write_json(folder / "config.json", config)
    open_run(folder, pretraining())
    assert "other packages" in caplog.text
    assert "'keras': '2.0'" in caplog.text


def test_write_json(tmp_path):
    write_json(tmp_path / "x.json", {"a": (1, 2)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_recipes_round_trip(tmp_path):
    folder = open_run(tmp_path / "a", finetuning(clip_norm=1.0))
    config = json.loads((folder / "config.json").read_text())
    del config["kind"], config["versions"], config["system"], config["paths"]
    assert config == json.loads(json.dumps(dataclasses.asdict(finetuning(clip_norm=1.0))))
