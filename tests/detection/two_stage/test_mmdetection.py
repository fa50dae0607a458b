"""The losses of the variant "mmdetection", computed once more from its formulas in NumPy, object by object."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_cnv2.detection import Variant, mask_rcnn
from tests.detection.two_stage.test_roi_align import by_hand
from tests.detection.two_stage.test_torchvision import backbone
from tests.golden import mask_rcnn_case as case

pytestmark = pytest.mark.skipif(keras.backend.backend() == "torch", reason="Mask R-CNN is for TensorFlow and JAX")

SIZE = case.SIZES[0]
FEW = Variant(training_candidates=200, training_proposals=60, anchor_samples=64, box_samples=24)
BACKGROUND, IGNORED = -1, -2


def overlaps_of(candidates, objects):
    found = np.zeros((len(candidates), len(objects)))
    for i, a in enumerate(candidates.astype("float64")):
        for j, b in enumerate(objects.astype("float64")):
            sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            shared = np.prod(np.maximum(sides, 0))
            found[i, j] = shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)
    return found


def assigned(candidates, objects, positive, negative, least):
    """MaxIoUAssigner with match_low_quality and gt_max_assign_all: objects take their best candidates one by one."""
    overlaps = overlaps_of(candidates, objects)
    best = overlaps.max(axis=1)
    found = np.where(best < negative, BACKGROUND, IGNORED)
    found = np.where(best >= positive, overlaps.argmax(axis=1), found)
    for number in range(len(objects)):
        most = overlaps[:, number].max()
        if most >= least:
            found[overlaps[:, number] == most] = number
    return found


def drawn(matches, draws, number, fraction):
    """RandomSampler; those with the largest draws come first."""
    order = np.argsort(-draws)
    positive = [i for i in order if matches[i] >= 0][: int(number * fraction)]
    negative = [i for i in order if matches[i] == BACKGROUND][: number - len(positive)]
    return positive, negative


def encoded(candidate, box, deviations):
    """DeltaXYWHBBoxCoder, in the order y, x, height, width."""
    (corner, size), (box_corner, box_size) = ((x[:2], x[2:] - x[:2]) for x in map(np.float64, (candidate, box)))
    shift = (box_corner + box_size / 2 - corner - size / 2) / size
    deltas = [*shift[::-1], *np.log(box_size / size)[::-1]]
    return np.divide(deltas, deviations)


def binary_cross_entropy(logits, target):
    probability = 1 / (1 + np.exp(-np.float64(logits)))
    return -np.log(probability if target else 1 - probability)


def losses_of_anchors(first, anchors, objects, draws):
    """The sums over samples, and their number."""
    of_class = of_box = count = 0
    for image, (boxes, _, _) in enumerate(objects):
        matches = assigned(anchors, boxes, 0.7, 0.3, 0.3)
        positive, negative = drawn(matches, draws[image], FEW.anchor_samples, 0.5)
        assert positive
        count += len(positive) + len(negative)
        of_class += sum(
            binary_cross_entropy(first["objectness"][image, i], matches[i] >= 0) for i in positive + negative
        )
        for i in positive:
            target = encoded(anchors[i], boxes[matches[i]], [1, 1, 1, 1])
            of_box += np.abs(first["deltas"][image, i] - target).sum()
    return of_class / count, of_box / count


def losses_of_boxes(model, first, objects, draws):
    of_class = of_box = of_mask = count = masks = 0
    for image, (boxes, classes, object_masks) in enumerate(objects):
        proposals = first["boxes"][image][first["is_proposal"][image]]
        candidates = np.concatenate([boxes, proposals])  # add_gt_as_proposals
        own = np.concatenate([draws[1][image][: len(boxes)], draws[0][image][: len(proposals)]])
        matches = assigned(candidates, boxes, 0.5, 0.5, 0.5)
        positive, negative = drawn(matches, own, FEW.box_samples, 0.25)
        count += len(positive) + len(negative)
        chosen = candidates[positive + negative]
        levels = [level[image : image + 1] for level in first["levels"]]
        logits, deltas = map(np.asarray, model.box_head(model.pooled(levels, ops.convert_to_tensor(chosen[None]), 7)))
        mask_logits = np.asarray(model.mask_head(model.pooled(levels, ops.convert_to_tensor(chosen[None]), 14)))
        for place, i in enumerate(positive + negative):
            target = classes[matches[i]] if matches[i] >= 0 else model.classes
            exponents = np.exp(np.float64(logits[0, place]))
            of_class -= np.log(exponents[target] / exponents.sum())
        for place, i in enumerate(positive):
            number = classes[matches[i]]
            target = encoded(candidates[i], boxes[matches[i]], [0.1, 0.1, 0.2, 0.2])
            of_box += np.abs(deltas[0, place, number] - target).sum()
            bitmap = object_masks[matches[i]][..., None].astype("float64")
            targets = by_hand(bitmap, candidates[i], 28, 1, 0, aligned=True)[..., 0] >= 0.5
            pairs = zip(mask_logits[0, place, :, :, number].ravel(), targets.ravel())
            of_mask += np.mean([binary_cross_entropy(*pair) for pair in pairs])
            masks += 1
    assert masks
    return of_class / count, of_box / count, of_mask / masks


def test_losses():
    model = mask_rcnn(backbone(), case.CLASSES, width=8, units=8, convs=1, variant=FEW)
    rng = np.random.default_rng(4)
    for variable in model.trainable_variables:
        scale = np.sqrt(np.prod(variable.shape[:-1])) if len(variable.shape) > 1 else 10
        variable.assign(rng.normal(size=variable.shape).astype("float32") / scale)
    boxes, classes, masks = case.labels(*SIZE)
    first = model(case.images(*SIZE), training=True)
    anchors = np.concatenate(model.anchors((2, *SIZE, 3)))
    draws = case.draws(len(anchors)), case.draws(FEW.training_proposals, seed=3)
    first["draws"] = [*map(ops.convert_to_tensor, draws)]
    model.compile("sgd")
    model.compute_loss(case.images(*SIZE), {"boxes": boxes, "classes": classes, "masks": masks}, first)
    ours = [float(tracker.result()) for tracker in model.trackers]

    objects = [[values[image][classes[image] >= 0] for values in (boxes, classes, masks)] for image in range(2)]
    first |= {name: np.concatenate(first[name], axis=1) for name in ("objectness", "deltas")}
    first |= {name: np.asarray(first[name]) for name in ("boxes", "is_proposal")}
    of_anchors = losses_of_anchors(first, anchors, objects, draws[0])
    # The objects themselves take the draws of anchors.
    expected = [*of_anchors, *losses_of_boxes(model, first, objects, (draws[1], draws[0]))]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
