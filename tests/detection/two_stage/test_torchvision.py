"""The numbers of torchvision's Mask R-CNN, from tests/golden/make_mask_rcnn.py, with the variant of that name."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_cnv2.detection import Detector, mask_rcnn, paste_masks
from keras_cnv2.detection.two_stage.roi_align import roi_align
from tests.golden import mask_rcnn_case as case

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "mask_rcnn.npz")

pytestmark = pytest.mark.skipif(keras.backend.backend() == "torch", reason="Mask R-CNN is for TensorFlow and JAX")


def backbone():
    """Convolutions that read the image anew for each level."""
    images = keras.Input((None, None, 3))
    levels = {
        f"P{level}": keras.layers.Conv2D(channels, stride, stride, name=f"backbone_{level}")(images)
        for level, (stride, channels) in enumerate(case.CHANNELS.items(), start=2)
    }
    model = keras.Model(images, levels)
    model.pyramid_outputs = levels
    return model


@pytest.fixture(scope="module")
def model():
    sizes = {"width": case.WIDTH, "units": case.UNITS, "convs": case.CONVS}
    model = mask_rcnn(backbone(), case.CLASSES, **sizes, variant="torchvision")
    variables = {variable.path.removeprefix(f"{model.name}/"): variable for variable in model.trainable_variables}
    weights = {name.replace("backbone/", "backbone_"): array for name, array in case.weights().items()}
    assert weights.keys() == variables.keys()
    for name, array in weights.items():
        variables[name].assign(array)
    return model


@pytest.fixture(params=case.SIZES, ids=str, scope="module")
def size(request):
    return request.param


@pytest.fixture(scope="module")
def golden(size):
    return {name.partition("/")[2]: GOLDEN[name] for name in GOLDEN if name.startswith(f"{size[0]}/")}


@pytest.fixture(scope="module")
def first(model, size):
    return model(case.images(*size))


@pytest.fixture(scope="module")
def training(model, size):
    if keras.backend.backend() == "jax" and size != case.SIZES[0]:
        pytest.skip("one size shows what depends on the backend")
    return model(case.images(*size), training=True)


def close(ours, theirs, tolerance=1e-4):
    np.testing.assert_allclose(ops.convert_to_numpy(ours), theirs, rtol=tolerance, atol=tolerance)


def test_anchors(model, size, golden):
    np.testing.assert_array_equal(np.concatenate(model.anchors((2, *size, 3))), golden["anchors"])


def test_pyramid(model, size, first, golden):
    close(first["levels"][0][:, ::4, ::4], golden["p2"])
    *_, p6 = model.pyramid(model.features(case.images(*size)))
    close(p6, golden["p6"])


def test_proposal_head(first, golden):
    close(ops.concatenate(first["objectness"], axis=1), golden["objectness"])
    close(ops.concatenate(first["deltas"], axis=1), golden["deltas"])


def sorted_rows(boxes):
    boxes = np.asarray(boxes)
    return boxes[np.lexsort(np.round(boxes, 2).T)]


def test_proposals(first, training, golden):
    """Rounding may exchange neighbours whose scores are nearly equal, so all boxes are compared in another order."""
    for kind, ours in (("proposals", first), ("training_proposals", training)):
        for image in range(2):
            theirs = golden[f"{kind}_{image}"]
            boxes = ops.convert_to_numpy(ours["boxes"])[image]
            assert ops.convert_to_numpy(ours["is_proposal"])[image].sum() == len(theirs)
            moved = np.abs(boxes[: len(theirs)] - theirs).max(-1) > 1e-2
            assert moved.mean() < 0.02
            close(sorted_rows(boxes[: len(theirs)]), sorted_rows(theirs), 1e-3)  # in pixels


def test_heads(model, size, first, golden):
    boxes = ops.convert_to_tensor(case.some_boxes(*size))
    logits, deltas = model.box_head(model.pooled(first["levels"], boxes, 7))
    close(logits, golden["box_logits"])
    close(deltas, golden["box_deltas"])
    masks = model.mask_head(model.pooled(first["levels"], boxes, 14))
    close(masks[:, :, ::3, ::3], golden["mask_logits"])


@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "corners"])
def test_roi_align(size, first, golden, aligned, samples):
    boxes = case.some_boxes(*size)
    level = np.zeros(boxes.shape[:2], "int32")
    ours = roi_align([first["levels"][1]], ops.convert_to_tensor(boxes), level, [8], 7, samples, aligned)
    theirs = golden[f"roi_align_{'aligned' if aligned else 'corners'}_{samples}"]
    close(ops.reshape(ours, theirs.shape), theirs)


@pytest.mark.backends
def test_losses(model, size, training, golden):
    boxes, classes, masks = case.labels(*size)
    training = dict(training)
    # Theirs, in their order: the random numbers are for positions.
    theirs = [golden[f"training_proposals_{image}"] for image in range(2)]
    number = training["boxes"].shape[1]
    training["boxes"] = ops.convert_to_tensor([np.pad(one, ((0, number - len(one)), (0, 0))) for one in theirs])
    training["is_proposal"] = ops.convert_to_tensor([np.arange(number) < len(one) for one in theirs])
    draws = case.draws(len(golden["anchors"])), case.draws(2000, seed=3)[:, :number]
    training["draws"] = [*map(ops.convert_to_tensor, draws)]
    model.compile("sgd")
    model.reset_metrics()
    loss = model.compute_loss(case.images(*size), {"boxes": boxes, "classes": classes, "masks": masks}, training)
    ours = [float(tracker.result()) for tracker in model.trackers]
    close(ours, golden["losses"])
    close(loss, golden["losses"].sum())


def test_masks(model, size, first, golden):
    boxes, classes = (
        np.stack([golden[f"found_{name}_{image}"][:8] for image in range(2)]) for name in ("boxes", "classes")
    )
    masks = model.masks_in(first, ops.convert_to_tensor(boxes), ops.convert_to_tensor(classes.astype("int32")))
    theirs = np.stack([golden[f"found_masks_{image}"] for image in range(2)])
    close(masks, theirs)
    pasted = (
        np.asarray(paste_masks(ops.convert_to_tensor(theirs), ops.convert_to_tensor(boxes), *size, padded=True)) > 0.5
    )
    expected = np.stack([np.unpackbits(golden[f"pasted_{image}"], axis=-1)[..., : size[1]] for image in range(2)])
    assert (pasted != expected).mean() < 1e-5  # a probability of 0.5, rounded


def test_detections(model, size, golden):
    options = {"nms": "hard", "iou_threshold": 0.5, "score_threshold": 0.05, "max_detections": 100}
    found = Detector(model, **options, candidates=3000)(case.images(*size))
    found = {name: ops.convert_to_numpy(values) for name, values in found.items()}
    for image in range(2):
        close(found["boxes"][image], golden[f"found_boxes_{image}"], 1e-3)  # in pixels
        close(found["scores"][image], golden[f"found_scores_{image}"])
        np.testing.assert_array_equal(found["classes"][image], golden[f"found_classes_{image}"])
        close(found["masks"][image, :8], golden[f"found_masks_{image}"])
