import dataclasses

import keras
import numpy as np
import pytest

from keras_cnv2.detection import Variant
from keras_cnv2.optimizers.layer_decay import layers_above
from training.__main__ import main
from training.errors import RecipeError
from training.models.build import new_backbone, new_detector, new_segmenter
from training.recipes import schedules
from training.recipes.dense import Dense
from training.recipes.detection import DETECTION, Detection
from training.recipes.images import FINETUNING
from training.recipes.segmentation import HEADS, SEGMENTATION, Segmentation

FIELDS = {
    "depths": (1, 1, 1, 1),
    "dims": (4, 6, 8, 10),
    "batch_size": 4,
    "lr": 1e-3,
    "iterations": 12,
    "warmup_iterations": 3,
    "report_every": 4,
    "weight_decay": 0.05,
    "betas": (0.9, 0.999),
    "scale": (0.5, 2.0),
}


def rates(recipe):
    schedule = recipe.learning_rate(recipe.report_every)
    return np.array([float(schedule(step)) for step in range(recipe.iterations)])


@pytest.mark.backends
def test_poly_with_warmup():
    # mmsegmentation's "poly" policy with power 1 and a linear warm-up from (nearly) 0.
    expected = [1e-3 * (1 - i / 12) * min(i / 3, 1) for i in range(12)]
    np.testing.assert_allclose(rates(Dense(**FIELDS)), expected, atol=1e-9)


@pytest.mark.backends
def test_steps_with_warmup():
    found = rates(Dense(**{**FIELDS, "schedule": "steps", "iterations": 36, "warmup_iterations": 2}))
    expected = [0, 5e-4, *[1e-3] * 25, *[1e-4] * 6, *[1e-5] * 3]
    np.testing.assert_allclose(found[:27], expected[:27], rtol=1e-6)
    np.testing.assert_allclose(found[28:33], 1e-4, rtol=1e-6)
    np.testing.assert_allclose(found[34:], 1e-5, rtol=1e-6)


def test_schedule_keeps_its_configuration():
    schedule = Dense(**FIELDS).learning_rate(4)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert [float(again(i)) for i in range(12)] == [float(schedule(i)) for i in range(12)]


def test_no_warmup():
    assert float(schedules.Warmup(schedules.poly(1e-3, 10), 0)(0)) == pytest.approx(1e-3)


def test_epochs_are_those_of_the_log():
    recipe = Dense(**{**FIELDS, "accumulation": 2})
    assert recipe.epochs == 3
    assert recipe.steps_per_epoch(1000) == 8
    assert [recipe.steps_per_pass(images) for images in (4, 7, 1000, 1003)] == [2, 2, 500, 500]


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Dense, {"iterations": 10}, "iterations must be a multiple of report_every=4"),
        (Dense, {"warmup_iterations": 13}, "warmup_iterations must be from 0 to 12"),
        (Dense, {"schedule": "cosine"}, "schedule must be one of poly, steps"),
        (Dense, {"lr": 0.0}, "lr must be positive"),
        (Dense, {"scale": (2.0, 1.0)}, "scale must be two rising"),
        (Dense, {"stem_stride": 1}, "stem_stride must be 4"),
        (Dense, {"layer_decay_type": "group"}, "layer_decay_type must be single"),
        (Dense, {"ema": 1.0}, "ema must be none or between"),
        (Segmentation, {"head": "fcn"}, "head must be one of upernet, deeplab"),
        (Segmentation, {"stride": 10}, "stride must be from 1 to window, or none"),
        (Segmentation, {"window": 64}, "stride must be from 1 to window"),
        (Segmentation, {"ignore_label": 256}, "ignore_label must be from 0 to 255"),
        (Segmentation, {"head": "deeplab", "image_size": 72}, "image_size must be a multiple of 32"),
        (Segmentation, {"head": "deeplab", "image_size": 64}, "window must be image_size=64"),
        (Detection, {"image_size": 100}, "image_size must be a multiple of 32"),
        (Detection, {"nms": "matrix"}, "nms must be one of soft, hard"),
        (Detection, {"iou_threshold": 0.0}, "iou_threshold must be above 0"),
        (Detection, {"max_boxes": 0}, "max_boxes must be positive"),
        (Detection, {"head": "cascade"}, "head must be one of retinanet, mask_rcnn, faster_rcnn"),
        (Detection, {"head_units": 0}, "head_units must be positive"),
        (Detection, {"anchor_scale": 0.0}, "anchor_scale must be positive"),
        (Detection, {"proposals": 0}, "proposals must be positive"),
        (Detection, {"anchor_samples": 1}, "anchor_samples must be at least 2"),
        (Detection, {"box_samples": 3}, "box_samples must be at least 4"),
    ],
)
def test_impossible_recipe(kind, fields, message):
    with pytest.raises(RecipeError, match=message):
        kind(**{**FIELDS, **fields})


def test_recipes_of_the_paper():
    for row in (SEGMENTATION["ade20k"], DETECTION["coco"]):
        assert (row.weight_decay, row.betas, row.weights) == (0.05, (0.9, 0.999), "fcmae_ft_in1k")
    ade20k, coco = SEGMENTATION["ade20k"], DETECTION["coco"]
    assert (ade20k.batch_size, ade20k.image_size, ade20k.iterations) == (16, 512, 160_000)
    assert (coco.batch_size, coco.image_size, coco.scale, coco.lr) == (32, 1024, (0.1, 2.0), 1e-4)
    assert coco.iterations * coco.batch_size / 118_287 == pytest.approx(36, abs=0.01)


@pytest.mark.parametrize("size", ["", "_large", "_huge"])
def test_mask_rcnn_of_the_paper(size):
    """The configuration of mmdetection's ConvNeXt V2 project."""
    row = DETECTION[f"coco_mask_rcnn{size}"]
    assert row.masks
    assert (row.batch_size, row.image_size, row.scale, row.flip, row.min_box) == (32, 1024, (0.1, 2.0), True, 0.01)
    assert (row.lr, row.schedule, row.warmup_iterations, row.iterations) == (1e-4, "steps", 1000, 36 * 3696)
    assert (row.weight_decay, row.betas, row.dtype) == (0.05, (0.9, 0.999), "mixed_float16")
    assert (row.layer_decay, row.layer_decay_type) == (0.95, "group")
    assert (row.nms, row.iou_threshold, row.score_threshold) == ("linear", 0.5, 0.05)
    assert DETECTION["coco_mask_rcnn"].drop_path == 0.4


def test_digits_are_not_mirrored():
    row = DETECTION["digits"]
    assert (row.data, row.masks, row.flip, row.layer_decay, row.weights) == ("digits", True, False, 1.0, None)


def small_detector(name, **fields):
    """The model of a row, whose encoder has few channels."""
    recipe = dataclasses.replace(DETECTION[name], model=None, dims=(8, 8, 8, 8), dtype="float32", **fields)
    return new_detector(recipe, new_backbone(recipe), ("a", "b", "c"))


@pytest.fixture(scope="module")
def coco_mask_rcnn():
    return small_detector("coco_mask_rcnn", depths=(3, 3, 27, 3), head_width=8, head_units=8)


class TestMaskRCNN:
    def test_numbers_of_the_paper_s_row(self, coco_mask_rcnn):
        assert coco_mask_rcnn.variant == Variant()
        assert (coco_mask_rcnn.convs, coco_mask_rcnn.masks, coco_mask_rcnn.image_size) == (4, True, 1024)
        assert (DETECTION["coco_mask_rcnn"].head_width, DETECTION["coco_mask_rcnn"].head_units) == (256, 1024)

    def test_everything_above_the_stages_is_the_last_layer(self, coco_mask_rcnn):
        """Layer decay in 12 groups, as for the other tasks."""
        paths = [weight.path for weight in coco_mask_rcnn.trainable_variables]
        above = layers_above(paths, "group")
        places = ("stem_", "downsample_", "stages_")
        heads = {path for path in paths if not any(place in path for place in places)}
        assert {path for path, count in zip(paths, above) if count == 0} == heads
        assert {path.split("/")[0] for path in heads} >= {"pyramid", "proposal_head", "box_head", "mask_head"}
        assert {*above} == {*range(14)}
        of_block = {path.split("/")[0]: count for path, count in zip(paths, above)}
        assert [of_block[name] for name in ("stem_conv", "stages_0_0", "stages_1_0", "stages_2_0")] == [13, 12, 11, 10]
        assert [of_block[name] for name in ("stages_2_26", "downsample_3_conv", "stages_3_2")] == [2, 1, 1]

    def test_numbers_of_a_small_row(self):
        few = {"proposals": 20, "anchor_samples": 30, "box_samples": 16, "head_units": 12, "seed": 7}
        model = small_detector("instances", depths=(1, 1, 1, 1), head="faster_rcnn", **few)
        variant = model.variant
        assert (variant.training_candidates, variant.candidates) == (40, 20)
        assert (variant.training_proposals, variant.proposals) == (20, 20)
        assert (variant.anchor_samples, variant.box_samples) == (30, 16)
        assert (model.units, model.width, model.masks, model.seed) == (12, 64, False, 7)
        assert model.class_names == ("a", "b", "c")


def test_all_recipes_are_shown(capsys):
    main(["recipes"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*SEGMENTATION, *DETECTION, *FINETUNING))


def test_backbone_has_a_norm_a_level():
    backbone = new_backbone(Dense(**FIELDS, drop_path=0.5))
    assert {*backbone.pyramid_outputs} == {"P2", "P3", "P4", "P5"}
    assert backbone.pyramid_norms
    assert backbone.drop_path_rate == 0.5


@pytest.mark.parametrize("head", HEADS)
def test_segmenters(head):
    pytest.importorskip("keras_cv")
    recipe = Segmentation(**FIELDS, head=head, head_width=8, image_size=64, window=64, stride=32)
    model = new_segmenter(recipe, new_backbone(recipe), ("a", "b", "c"))
    assert tuple(model(np.zeros((1, 64, 64, 3), "float32")).shape) == (1, 64, 64, 3)
    assert model.class_names == ("a", "b", "c")
