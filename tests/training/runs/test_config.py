import dataclasses
import json

import pytest

from tests.training.runs_in_parts import interrupted
from tests.training.small import finetuning, pretraining
from training.commands.config import read_config
from training.errors import RunError
from training.files import write_json
from training.runs.folder import open_run, read_metrics


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


def test_recipes_round_trip(tmp_path):
    folder = open_run(tmp_path / "a", finetuning(clip_norm=1.0))
    config = json.loads((folder / "config.json").read_text())
    del config["kind"], config["versions"], config["system"], config["paths"]
    assert config == json.loads(json.dumps(dataclasses.asdict(finetuning(clip_norm=1.0))))
