import dataclasses

import pytest

from training.commands.recipes import table
from training.errors import RecipeError
from training.recipes import images
from training.recipes.fields import Finetuning, Pretraining
from training.recipes.images import FINETUNING, PRETRAINING

SIZES = {"A": "atto", "F": "femto", "P": "pico", "N": "nano", "T": "tiny", "B": "base", "L": "large", "H": "huge"}
# The paper's tables 9 to 13, with the learning rate of the official command where the paper's is a misprint.
IMAGENET = """
                 A     F     P     N     T     B        L        H
base_lr          2e-4  2e-4  2e-4  2e-4  8e-4  6.25e-4  6.25e-4  1.25e-3
weight_decay     0.3   0.05  0.3   0.3   0.05  0.05     0.05     0.05
layer_decay      0.9   0.9   0.9   0.9   0.9   0.6      0.6      0.75
warmup_epochs    0     0     0     0     40    20       20       10
epochs           600   600   600   600   300   100      100      50
label_smoothing  0.2   0.2   0.2   0.2   0.1   0.1      0.1      0.1
mixup            0     0.3   0.3   0.5   0.8   0.8      0.8      0.8
cutmix           0     0.3   0.3   0.5   1.0   1.0      1.0      1.0
drop_path        0.1   0     0     0.1   0.2   0.1      0.2      0.3
batch_size       1024  1024  1024  1024  1024  1024     1024     1024
ema              0.9999 0.9999 0.9999 0.9999 0.9999 0.9999 0.9999 0.9999
"""
IMAGENET_22K = """
                 N       T       B       L       H
base_lr          2.5e-4  2.5e-4  2.5e-4  2.5e-4  2.5e-4
weight_decay     0.05    0.05    0.05    0.05    0.05
layer_decay      0.9     0.9     0.8     0.8     0.8
batch_size       4096    4096    4096    4096    4096
warmup_epochs    5       5       5       5       5
epochs           90      90      90      90      90
label_smoothing  0.1     0.1     0.1     0.1     0.1
mixup            0.8     0.8     0.8     0.8     0.8
cutmix           1.0     1.0     1.0     1.0     1.0
drop_path        0       0       0.1     0.1     0.3
ema              none    none    none    none    none
"""
IMAGENET_AFTER_22K = """
                 N       T       B       L       H
base_lr          2.5e-5  2.5e-5  2.5e-5  2.5e-5  2.5e-5
weight_decay     1e-8    1e-8    1e-8    1e-8    1e-8
layer_decay      0.9     0.9     0.8     0.8     0.85
batch_size       512     512     512     512     512
warmup_epochs    0       0       0       0       0
epochs           90      90      30      30      30
label_smoothing  0.1     0.1     0.1     0.1     0.1
mixup            0       0       0       0       0
cutmix           0       0       0       0       0
drop_path        0.1     0.1     0.2     0.3     0.5
ema              0.9999  0.9999  0.9999  0.9999  none
"""


def cells(table):
    header, *lines = table.strip("\n").splitlines()
    for line in lines:
        field, *values = line.split()
        for column, value in zip(header.split(), values, strict=True):
            yield SIZES[column], field, None if value == "none" else float(value)


@pytest.mark.parametrize(
    ("prefix", "table"),
    [("imagenet", IMAGENET), ("imagenet22k", IMAGENET_22K), ("imagenet_after_22k", IMAGENET_AFTER_22K)],
)
def test_finetuning_is_the_paper_s(prefix, table):
    for size, field, expected in cells(table):
        row = FINETUNING[f"{prefix}_{size}"]
        assert getattr(row, field) == expected, (size, field)
        assert (row.model, row.image_size, row.betas, row.min_lr) == (size, 224, (0.9, 0.999), 1e-6)
        assert (row.rand_augment, row.rand_augment_std, row.erasing, row.head_init) == (9, 0.5, 0.25, 0.001)


def test_layer_decay_types():
    grouped = {name for name, row in FINETUNING.items() if row.layer_decay_type == "group"}
    assert grouped == {"imagenet_base", "imagenet_large"}


def test_pretraining_is_the_paper_s():
    for name, epochs in {"imagenet": 1600, "imagenet_800": 800}.items():
        row = PRETRAINING[name]
        assert (row.base_lr, row.weight_decay, row.betas, row.batch_size) == (1.5e-4, 0.05, (0.9, 0.95), 4096)
        assert (row.warmup_epochs, row.epochs, row.min_lr, row.crop_area) == (40, epochs, 0, (0.2, 1.0))
        assert (row.mask_ratio, row.decoder_dim, row.decoder_depth, row.norm_pix_loss) == (0.6, 512, 1, True)
        assert row.lr == pytest.approx(2.4e-3)


def test_rows_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRETRAINING["imagenet"].epochs = 1


def test_derived_figures():
    row = dataclasses.replace(PRETRAINING["quickstart"], batch_size=64, accumulation=4, base_lr=1e-3)
    assert row.lr == 1e-3 * 64 / 256
    assert row.step_batch == 16
    assert [row.steps_per_epoch(images) for images in (64, 200, 255, 256)] == [4, 12, 12, 16]  # no part of a step
    with pytest.raises(RecipeError, match=r"batch_size must be at most .*, 63. Received: batch_size=64"):
        row.steps_per_epoch(63)


def test_linear_schedule():
    row = dataclasses.replace(PRETRAINING["quickstart"], schedule="linear", epochs=10, warmup_epochs=2, base_lr=0.04)
    schedule = row.learning_rate(10)
    received = [float(schedule(step)) for step in (0, 10, 20, 60, 100)]
    assert received == pytest.approx([0.0, 0.01 * 0.9 / 2, 0.01 * 0.8, 0.01 * 0.4, 0.0], abs=1e-8)


IMPOSSIBLE = {
    "model": "medium",
    "depths": (1, 2, 0, 1),
    "dims": (1, 2, 3),
    "stem_stride": 3,
    "image_size": 7,
    "resize": "stretch",
    "crop_area": (0.5, 0.2),
    "epochs": 0,
    "warmup_epochs": 21,
    "batch_size": -1,
    "base_lr": 0.0,
    "min_lr": 1.0,
    "optimizer": "sgd",
    "schedule": "steps",
    "shift": 32,
    "cutout": 33,
    "first_size": 33,
    "first_epochs": 1,
    "alternate_flip": True,  # flip is false in this row
    "weight_decay": -0.1,
    "betas": (0.9, 1.0),
    "drop_path": 1.0,
    "accumulation": 3,
    "clip_norm": 0.0,
    "dtype": "int8",
    "checkpoint_steps": 0,
    "seed": -1,
    "validation_share": 1.0,
    "max_unreadable": 1.5,
}


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE.items())
def test_impossible_values_are_named(name, value):
    culprit = {"accumulation": "batch_size"}.get(name, name)
    with pytest.raises(RecipeError, match=rf"^{culprit} must be .* Received: {culprit}="):
        dataclasses.replace(FINETUNING["quickstart"], **{name: value})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (PRETRAINING, "image_size", 36),
        (PRETRAINING, "mask_ratio", 1.0),
        (PRETRAINING, "decoder_dim", 0),
        (PRETRAINING, "decoder_depth", -1),
        (FINETUNING, "layer_decay", 0.0),
        (FINETUNING, "layer_decay_type", "double"),
        (FINETUNING, "layer_decay_type", "group"),
        (FINETUNING, "rand_augment", 11.0),
        (FINETUNING, "rand_augment_std", -1.0),
        (FINETUNING, "mixup", -0.1),
        (FINETUNING, "cutmix", -0.1),
        (FINETUNING, "erasing", 1.0),
        (FINETUNING, "label_smoothing", 1.0),
        (FINETUNING, "head_init", 0.0),
        (FINETUNING, "ema", 1.0),
        (FINETUNING, "teacher_share", 1.5),
        (FINETUNING, "temperature", 0.0),
    ],
)
def test_impossible_values_of_a_phase(kind, name, value):
    with pytest.raises(RecipeError, match=rf"^{name} must be .* Received: {name}={value}"):
        dataclasses.replace(kind["quickstart"], **{name: value})


@pytest.mark.parametrize(("name", "value"), [("teacher_share", 0.9), ("temperature", 4.0)])
def test_what_is_of_a_teacher_needs_one(name, value):
    with pytest.raises(RecipeError, match=rf"^{name} must be .* without a teacher. Received: {name}={value}"):
        dataclasses.replace(FINETUNING["quickstart"], **{name: value})
    dataclasses.replace(FINETUNING["quickstart"], teacher="runs/large", **{name: value})


def test_model_or_depths_and_dims():
    with pytest.raises(RecipeError, match="model must be given without depths and dims"):
        dataclasses.replace(FINETUNING["quickstart"], model="atto")
    with pytest.raises(RecipeError, match="model must be given without depths and dims"):
        dataclasses.replace(FINETUNING["images"], model=None)


def test_every_field_is_explained():
    from training.commands.options import explanations

    for kind in (Pretraining, Finetuning):
        assert explanations(kind).keys() == {field.name for field in dataclasses.fields(kind)}


def test_table_has_every_figure():
    text = table(images.IMAGENET)
    for word in ("imagenet_huge", "layer-wise lr decay", "0.00125", "0.000625", "base learning rate", "0.08,1"):
        assert word in text
    assert "dtype" not in text, "defaults are left out"
