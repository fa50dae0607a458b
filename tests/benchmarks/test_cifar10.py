import json

import pytest
from PIL import Image

from benchmarks import cifar10
from training.commands import finetune, pretrain
from training.errors import RunError
from training.recipes.images import FINETUNING
from training.runs.folder import open_run


def recipe_of(row):
    return cifar10.recipe_of(row, "cifar10_short", "here.npz", "runs/atto-pretraining")


def test_rows_differ_in_what_they_say_alone():
    plain = recipe_of("atto-scratch-all-0")
    assert (plain.model, plain.weights, plain.grn, plain.train_share, plain.seed) == ("atto", None, True, 1.0, 0)
    changes = {
        "atto-fcmae-all-0": {"weights"},
        "atto-without_grn-all-0": {"grn"},
        "atto-fcmae_without_grn-all-0": {"weights", "grn"},
        "femto-scratch-tenth-1": {"model", "train_share", "seed", "epochs", "warmup_epochs"},
    }
    for row, fields in changes.items():
        assert {k for k, v in vars(recipe_of(row)).items() if v != getattr(plain, k)} == fields, row


def test_budget_is_the_text_s():
    everything, tenth = recipe_of("atto-scratch-all-0"), recipe_of("atto-scratch-tenth-0")
    steps = [
        recipe.steps_per_epoch(images) * recipe.epochs for recipe, images in ((everything, 50_000), (tenth, 5_000))
    ]
    assert steps == [1170, 702]


def test_pre_trains_once(tmp_path, monkeypatch):
    ran = []

    def train(recipe, folder):
        ran.append((folder.name, recipe.seed, recipe.weights, recipe.grn))
        open_run(folder, recipe)
        (folder / "metrics.json").write_text(json.dumps({"top1": 0.5 + 0.1 * recipe.seed}))
        return json.loads((folder / "metrics.json").read_text())

    monkeypatch.setattr(pretrain, "run", train)
    monkeypatch.setattr(finetune, "run", train)
    for row in ("fcmae-all-0", "fcmae-all-1", "fcmae-all-1", "scratch-all-0", "fcmae_without_grn-all-0"):
        cifar10.run(f"atto-{row}", "cifar10_short", "here.npz", tmp_path)
    weights = str(tmp_path / "atto-pretraining")
    assert ran == [
        ("atto-pretraining", 0, None, True),
        ("atto-fcmae-all-0", 0, weights, True),
        ("atto-fcmae-all-1", 1, weights, True),
        ("atto-scratch-all-0", 0, None, True),
        ("atto-pretraining_without_grn", 0, None, False),
        ("atto-fcmae_without_grn-all-0", 0, f"{weights}_without_grn", False),
    ]
    assert cifar10.table(tmp_path).splitlines()[2:] == [
        "| pre-trained with FCMAE | 100% | 55.0% (50.0%, 60.0%) |  |",
        "| from scratch | 100% | 50.0% |  |",
        "| pre-trained with FCMAE, without GRN | 100% | 50.0% |  |",
    ]
    cifar10.main(["--runs", str(tmp_path), "--picture", str(tmp_path / "it.png")])
    assert min(Image.open(tmp_path / "it.png").size) > 200


def test_finished_run_of_another_budget(tmp_path):
    open_run(tmp_path / "atto-scratch-all-0", cifar10.recipe_of("atto-scratch-all-0", "cifar10", "x", None))
    (tmp_path / "atto-scratch-all-0" / "metrics.json").write_text("{}")
    with pytest.raises(RunError, match="had another recipe.*epochs: "):
        cifar10.run("atto-scratch-all-0", "cifar10_short", "x", tmp_path)


def test_clear_errors(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cifar10.main([])
    assert "give a ROW, --table or --picture" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"error: There is no such folder.*nowhere"):
        cifar10.main(["atto-scratch-all-0", "--picture", str(tmp_path / "nowhere" / "it.png")])


def test_row_without_test_images(tmp_path):
    open_run(tmp_path / "atto-scratch-all-0", cifar10.recipe_of("atto-scratch-all-0", "cifar10", "x", None))
    (tmp_path / "atto-scratch-all-0" / "metrics.json").write_text('{"accuracy": 0.5}')
    assert "scratch" not in cifar10.table(tmp_path)


def test_unknown_row(capsys):
    with pytest.raises(SystemExit):
        cifar10.main(["atto-fcmae-half-0"])
    assert "Received: atto-fcmae-half-0" in capsys.readouterr().err


def test_long_recipes_are_there_too():
    assert {"cifar10", "cifar10_short"} <= {*FINETUNING}
