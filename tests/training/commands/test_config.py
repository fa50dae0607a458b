"""Recipes from the config.json of an earlier run."""

import argparse
import dataclasses
import json

import pytest

from tests.training.small import finetuning, pretraining
from training.__main__ import main
from training.commands import config, evaluate, options
from training.errors import RecipeError
from training.recipes.detection import DETECTION
from training.recipes.fields import Finetuning
from training.recipes.images import FINETUNING
from training.recipes.segmentation import SEGMENTATION
from training.runs.folder import open_run


@pytest.fixture
def run(tmp_path):
    """The folder of a run."""
    return open_run(tmp_path / "run", finetuning(ema=0.9), {"images": 26})


def chosen(*words):
    parser = argparse.ArgumentParser()
    options.add_options(parser, FINETUNING, "images")
    return options.chosen_recipe(parser.parse_args([*map(str, words)]), FINETUNING)


@pytest.mark.parametrize("recipe", [finetuning(), pretraining(), SEGMENTATION["scenes"], DETECTION["objects"]])
def test_round_trip(recipe, tmp_path):
    folder = open_run(tmp_path / "run", recipe)
    assert config.recipe_of(folder / "config.json", type(recipe)) == recipe
    assert config.recipe_of(folder, type(recipe)) == recipe


def test_options_override_it(run):
    assert chosen("--config", run / "config.json") == finetuning(ema=0.9)
    recipe = chosen("--config", run, "--epochs", "7", "--ema", "none", "--model", "atto")
    assert recipe == dataclasses.replace(finetuning(), epochs=7, model="atto", depths=None, dims=None)


def test_with_a_recipe_it_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        chosen("--config", run, "--recipe", "quickstart")
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "Pretraining"}, "must be of a run of Finetuning. Received: .*, of Pretraining"),
        ({"kind": None}, "must be the config.json of a run"),
        ({"speed": 3}, r"fields of Finetuning alone. Received: .*\['speed'\]"),
        ({"epochs": "7"}, "epochs must be int. Received: epochs='7'"),
        ({"epochs": True}, "epochs must be int. Received: epochs=True"),
        ({"betas": [0.9]}, r"betas must be float,float. Received: betas=\(0.9,\)"),
        ({"base_lr": float("nan")}, "base_lr must be float. Received: base_lr=nan"),
        ({"base_lr": 10**400}, "base_lr must be float. Received: base_lr=1000"),
        ({"epochs": 0}, "epochs must be positive"),
    ],
)
def test_configurations_that_are_none(run, change, message):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecipeError, match=message):
        config.recipe_of(path, Finetuning)


def test_missing_fields_are_named(run):
    path = run / "config.json"
    path.write_text(json.dumps({"kind": "Finetuning", "epochs": 3}))
    with pytest.raises(RecipeError, match=r"all fields of Finetuning. Received: .* without \[.*'base_lr'"):
        config.recipe_of(path, Finetuning)


@pytest.mark.parametrize("text", ["no JSON", "[1]", "3", "[" * 10**5])
def test_other_files(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match="JSON file|must be the config.json of a run"):
        chosen("--config", tmp_path / "c.json")
    for nothing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(RecipeError, match=r"its config.json. Received: .*, which does not exist"):
            chosen("--config", nothing)


def test_recipes_shows_it(run, capsys):
    main(["recipes", "--config", str(run / "config.json")])
    out = capsys.readouterr().out
    assert out.startswith("Finetuning\n")
    assert "4,6,8,10" in out


def test_evaluate_takes_weights_and_data_from_it(run):
    reading = {"max_unreadable": 0.01, "exif_orientation": True, "max_pixels": 50_000_000}
    expected = {"weights": str(run), "data": "digits", "image_size": 16, "resize": "squash", **reading}
    assert evaluate.completed({"data": None, "weights": []}, run / "config.json") == expected
    given = {"data": "others", "weights": "w", "image_size": 32, "resize": None}
    assert evaluate.completed(given, run) == {**given, "resize": "squash", **reading}
    with pytest.raises(RecipeError, match="data must be given, or the config of a run. Received: neither"):
        evaluate.completed({"weights": "w", "data": None})


@pytest.mark.parametrize("change", [{"data": 3}, {"data": ["digits"]}, {"image_size": "16"}, {"max_unreadable": "all"}])
def test_evaluate_refuses_damaged_ones(run, change):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecipeError, match=f"{next(iter(change))} must be .* Received: .* in {path}"):
        evaluate.completed({}, path)
