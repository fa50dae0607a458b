import argparse

import pytest

import training.__main__
from training.commands import options
from training.errors import RecipeError
from training.recipes.images import FINETUNING, PRETRAINING


def parse(*arguments, rows=FINETUNING, default="images"):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    options.add_options(parser, rows, default)
    return options.chosen_recipe(parser.parse_args(arguments), rows)


def test_without_options_it_is_the_row():
    assert parse() == FINETUNING["images"]
    assert parse("--recipe", "imagenet_tiny") == FINETUNING["imagenet_tiny"]


def test_every_kind_of_field_can_be_set():
    recipe = parse(
        *("--epochs", "7", "--base-lr", "1e-3", "--betas", "0.8,0.9", "--flip", "false", "--frozen"),
        *("--data", "some/folder", "--clip-norm", "1", "--ema", "none", "--weights", "None", "--resize", "squash"),
    )
    assert (recipe.epochs, recipe.base_lr, recipe.betas, recipe.flip, recipe.frozen) == (
        7,
        1e-3,
        (0.8, 0.9),
        False,
        True,
    )
    assert (recipe.data, recipe.clip_norm, recipe.ema, recipe.weights) == ("some/folder", 1.0, None, None)


def test_a_size_takes_the_place_of_depths_and_dims_and_back():
    sized = parse("--recipe", "quickstart", "--model", "tiny")
    assert (sized.model, sized.depths, sized.dims) == ("tiny", None, None)
    free = parse("--depths", "1,1,1,1", "--dims", "8,8,8,8", rows=PRETRAINING)
    assert free.architecture == {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epoch", "3"), "unrecognized arguments: --epoch"),
        (("--learning-rate", "3"), "unrecognized arguments: --learning-rate"),
        (("--epochs", "ten"), "argument --epochs: must be int. Received: 'ten'"),
        (("--epochs", "1.5"), "argument --epochs: must be int. Received: '1.5'"),
        (("--base-lr", "nan"), "argument --base-lr: must be float"),
        (("--base-lr", "inf"), "argument --base-lr: must be float"),
        (("--betas", "0.9"), "argument --betas: must be float,float. Received: '0.9'"),
        (("--flip", "maybe"), "argument --flip: must be true|false"),
        (("--ema", "much"), "argument --ema: must be float or none"),
        (("--recipe", "imagnet"), "argument --recipe: invalid choice: 'imagnet'"),
    ],
)
def test_unknown_fields_and_wrong_types(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(*arguments)
    assert message in capsys.readouterr().err


def test_impossible_value():
    with pytest.raises(RecipeError, match="epochs must be positive. Received: epochs=-1"):
        parse("--epochs", "-1", "--warmup-epochs", "0")


def test_fewer_epochs_than_those_of_the_warm_up(caplog):
    """The error says what to type, as the warm-up is not what was asked for."""
    message = "warmup_epochs must be from 0 to epochs=4. Received: warmup_epochs=5, .* --epochs 4 --warmup-epochs 0$"
    with pytest.raises(RecipeError, match=message):
        parse("--epochs", "4")
    assert parse("--epochs", "4", "--warmup-epochs", "0").warmup_epochs == 0
    assert parse("--epochs", "10").warmup_epochs == 5
    assert not caplog.text
    assert parse("--epochs", "9").warmup_epochs == 5
    assert "takes 5 of 9 epochs, the recipe's value; for a shorter run give --epochs 9 --warmup-epochs 1" in (
        caplog.text
    )


def test_help_explains_every_field(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "Learning rate for a batch of 256." in text
    assert "--layer-decay-type STR" in text


@pytest.mark.parametrize(
    "arguments", [("--pretrain-epochs", "0"), ("--name", "a/b"), ("--name", ".."), ("--seeds", "3")]
)
def test_quickstart_refuses(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        training.__main__.main(["quickstart", *arguments])
    assert error.value.code == 2
    assert arguments[1] in capsys.readouterr().err
