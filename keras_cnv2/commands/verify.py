"""Compares the logits of checkpoints with the published ones."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_cnv2.checkpoints.bundled import sha256_of
from keras_cnv2.checkpoints.hub_folder import is_repository
from keras_cnv2.checkpoints.read import without_key
from keras_cnv2.checkpoints.source import fetch_weights, find_weights, is_source
from keras_cnv2.commands.predict import check_classifier
from keras_cnv2.errors import CheckpointError
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.pictures import framing_of, load_image_for, to_input
from keras_cnv2.restore import restore_model

TOLERANCE = 1e-3


class Comparison(NamedTuple):
    """The result for one checkpoint and one way to resize the image.

    Args:
        name: Name of the checkpoint.
        image_size: Int, side of the image in pixels.
        resize: "crop" or "squash", how the image file was resized.
        expected: Tuple of floats, the published logits.
        received: Tuple of floats of the same length, the computed logits.
        origin: Dict that identifies the file of weights in the registry: "sha256" and, for a file from a hub, the
            "revision" of its repository.
    """

    name: str
    image_size: int
    resize: str
    expected: tuple[float, ...]
    received: tuple[float, ...]
    origin: dict

    @property
    def difference(self):
        """The largest absolute difference between the logits."""
        return float(np.max(np.abs(np.subtract(self.expected, self.received))))

    @property
    def matches(self):
        return self.difference <= TOLERANCE


def verify(weights, picture, logits=None):
    """Compares the first logits of a checkpoint with the published ones.

    For logits published at less than 384 pixels it is not certain whether the image was cropped, so both "crop" and
    "squash" are tried.

    Args:
        weights: Full name of a published checkpoint, or path of a file.
        picture: Path of the image file for which the logits were published: 000000039769.jpg of COCO val2017.
        logits: Optional list of the expected logits; by default those in the checkpoint's row of the registry.

    Returns:
        List of one or two `Comparison`.

    Raises:
        CheckpointError: If the checkpoint cannot be downloaded or read, or has no published logits.
        ValueError: If it is not a classifier or has fewer classes than there are logits, or if the image file cannot be
            decoded.
        OSError: If the image file or the file of weights does not exist.
    """
    row = find_weights(weights).row
    logits = logits or (row and row.logits)
    if not logits:
        raise CheckpointError(f"There are no published logits for these weights. Received: {weights!r}")
    model = restore_model(weights, classifier_activation="linear", any_size=True)
    check_classifier(model)
    if not isinstance(model, ConvNeXtV2):
        raise ValueError(f"Published logits are of ConvNeXtV2 classifiers. Received: a {type(model).__name__}")
    if len(logits) > model.classes:
        raise ValueError(f"The model has {model.classes} classes. Received: {len(logits)} logits")
    size = framing_of(model).size
    origin = _origin(model, weights)
    comparisons = []
    for resize in ("crop", "squash") if size < 384 else ("squash",):
        outputs = model.predict_on_batch(to_input(model, load_image_for(model, picture, size, resize)[None]))
        received = tuple(map(float, outputs[0, : len(logits)]))
        name = row.name if row else Path(weights).name
        comparisons.append(Comparison(name, size, resize, tuple(logits), received, origin))
    return comparisons


def _origin(model, weights):
    """Returns a dict that identifies the loaded file of weights, see `Comparison`."""
    if is_source(weights) and not is_repository(weights):
        return {"sha256": sha256_of(without_key(str(fetch_weights(weights).path))[0])}
    names = {"commit": "revision", "sha256": "sha256"}
    return {names[name]: value for name, value in model.pretrained.items() if name in names}
