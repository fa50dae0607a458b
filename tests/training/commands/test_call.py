"""Commands as Python calls: the same options, errors and results as on the command line."""

import argparse
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import training
import training.__main__
from tests.training.small import COMMON, finetuning, source
from training.commands import analyze, evaluate, finetune, pretrain, report
from training.recipes.images import FINETUNING

FIELDS = {name: value for name, value in COMMON.items() if name not in ("deterministic", "data")}


@pytest.fixture
def told(monkeypatch):
    """What commands are told, in place of doing it."""
    seen = []
    for module in (analyze, evaluate, finetune, pretrain, report):
        monkeypatch.setattr(module, "outcome", lambda args: seen.append(args) or "outcome")
    return seen


def of_command_line(module, *words):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("call", "module", "words"),
    [
        (
            lambda: training.finetune(data="a b", epochs=5, base_lr=1e-7, betas=(0.9, 0.95), frozen=True, ema=None),
            finetune,
            "--data=a b|--epochs|5|--base-lr|1e-7|--betas|0.9,0.95|--frozen|--ema|none",
        ),
        (lambda: training.pretrain(recipe="imagenet", flip=False), pretrain, "--recipe|imagenet|--flip|false"),
        (lambda: training.evaluate(weights="w", data="d", image_size=None), evaluate, "--weights|w|--data|d"),
        (lambda: training.analyze("a", "-b", data="d", labels=False), analyze, "--data|d|--no-labels|--|a|-b"),
        (lambda: training.report("runs"), report, "runs"),
        (lambda: training.report(Path("a b"), out=Path("c")), report, "a b|--out|c"),
        (
            lambda: training.finetune(
                betas=np.array([0.5, 0.75]), epochs=np.int64(5), flip=np.False_, depths=[1, 1, 1, 1]
            ),
            finetune,
            "--betas|0.5,0.75|--epochs|5|--flip|false|--depths|1,1,1,1",
        ),
        # Of what is no field of a recipe, None is the default.
        (lambda: training.finetune(name=None, runs=None, recipe=None, config=None, strategy=None), finetune, ""),
        (lambda: training.evaluate(weights="w", batch_size=None, json=None), evaluate, "--weights|w"),
        (lambda: training.analyze("a", labels=None), analyze, "a"),
    ],
)
def test_same_as_the_command_line(told, call, module, words):
    assert call() == "outcome"
    assert vars(told[0]) == vars(of_command_line(module, *filter(None, words.split("|"))))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epoch": 3}, "finetune: unrecognized arguments: --epoch=3"),
        ({"epochs": 1.5}, r"finetune: argument --epochs: must be int\. Received: '1\.5'"),
        ({"epochs": None}, "argument --epochs: must be int. Received: 'none'"),
        ({"recipe": "imagnet"}, "invalid choice: 'imagnet'"),
        ({"epochs": -1, "warmup_epochs": 0}, "epochs must be positive. Received: epochs=-1"),
        ({"data": "nowhere"}, "Received: nowhere"),
        ({"recipe": "images", "config": "c.json"}, "not allowed with"),
        ({"epoch": None}, "finetune: unrecognized arguments: --epoch=none"),
        ({"data": ["a", "b"]}, r"data must be a string or a path. Received: data=\['a', 'b'\]"),
        ({"data": 3}, "data must be a string or a path. Received: data=3"),
        ({"name": True}, "name must be a string or a path. Received: name=True"),
        ({"weights": b"a"}, "weights must be a string or a path. Received: weights=b'a'"),
        ({"data": np.zeros(2)}, r"data must be a string or a path. Received: data=array\(\[0., 0.\]\)"),
    ],
)
def test_errors(fields, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        training.finetune(runs=tmp_path / "runs", **fields)
    assert [*tmp_path.iterdir()] == []


def test_places_take_no_lists():
    with pytest.raises(ValueError, match=r"analyze: argument must be a string or a path. Received: .*\['a', 'b'\]"):
        training.analyze(["a", "b"], data="d")


def test_missing_packages_are_told_before_anything_else(monkeypatch):
    monkeypatch.setattr("training.PACKAGES", ("no_such_package",))
    message = r"No module named 'no_such_package'; install what training needs: pip install \"keras_cnv2\[train\]\"$"
    with pytest.raises(ModuleNotFoundError, match=f"^{message}"):
        training.finetune(data="digits")
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        training.__main__.main(["recipes"])


def test_all_commands_have_a_function():
    functions = {name for name, value in vars(training).items() if inspect.isfunction(value)}
    assert {*training.__main__.COMMANDS} - functions == {"recipes"}  # which are data


def test_finetune_and_evaluate(monkeypatch, tmp_path):
    monkeypatch.setattr("training.commands.training_run.open_source", lambda *args, **kwargs: source(24, 8))
    monkeypatch.setattr("training.commands.evaluate.open_source", lambda *args, **kwargs: source(24, 8))
    folder, metrics = training.finetune(data="digits", runs=tmp_path, name="one", weights=None, **FIELDS)
    assert folder == tmp_path / "one"
    assert metrics == json.loads((folder / "metrics.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    assert config["epochs"] == finetuning().epochs
    scores = training.evaluate(config=folder / "config.json")
    assert (scores["top1"], scores["images"]) == (metrics["top1"], 8)


def test_recipes_are_data_of_the_package(monkeypatch):
    """Also right after `import training`, which imports none of its rooms."""
    monkeypatch.delattr(training, "recipes")
    assert training.recipes.images.FINETUNING is FINETUNING
    assert {"detection", "segmentation"} <= {*dir(training.recipes)}
    with pytest.raises(AttributeError, match="module 'training' has no attribute 'recipe'"):
        training.recipe  # noqa: B018
