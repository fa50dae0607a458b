"""Finds the model that a set of weights belongs to, from their names and shapes alone."""

import itertools
from dataclasses import dataclass

from keras_cnv2.errors import CheckpointError


@dataclass(frozen=True)
class Architecture:
    """The architecture of the model that a set of weights fits.

    Args:
        depths: Number of blocks in each stage; of a backbone that ends before the last one, in its own stages.
        dims: Number of channels in each stage.
        stem_stride: Stride of the stem.
        channels: Number of input channels.
        has_norm: Whether the model has the classifier's final LayerNorm.
        has_pyramid_norms: Whether each level of the pyramid ends in a LayerNorm.
        classes: Number of classes, or `None` without a head.
        decoder_dim: Width of the FCMAE decoder, or `None` without a decoder.
        decoder_depth: Number of blocks of the decoder, 0 without one.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    stem_stride: int
    channels: int
    has_norm: bool
    has_pyramid_norms: bool
    classes: int | None
    decoder_dim: int | None
    decoder_depth: int


# The number in the name of the first stage's level, by the stride of the stem.
FIRST_LEVELS = {1: 0, 2: 1, 4: 2}


def stage_count(out_levels, stem_stride):
    """Returns the number of stages of a backbone with these arguments, see `keras_cnv2.ConvNeXtV2Backbone`."""
    if not out_levels:
        return 4
    return 1 + max(int(level.removeprefix("P")) for level in out_levels) - FIRST_LEVELS[stem_stride]


def architecture_of(shapes, stages=4):
    """Derives the architecture from the shapes of the weights.

    Args:
        shapes: Dict from Keras paths to shapes; a shape that is not known is `None`.
        stages: Int, the number of stages that the model is known to have.

    Returns:
        An `Architecture`.

    Raises:
        CheckpointError: If a weight that is needed for this is missing or has the wrong rank.
    """

    def count(template):
        """Counts the blocks, which are numbered from 0 without a gap."""
        first_weight = (f"{template.format(number)}/norm/gamma" for number in itertools.count())
        return len([*itertools.takewhile(shapes.__contains__, first_weight)])

    try:
        stem = shapes["stem_conv/kernel"]
        return Architecture(
            depths=tuple(count(f"stages_{stage}_{{}}") for stage in range(stages)),
            dims=tuple(shapes[f"stages_{stage}_0/norm/gamma"][0] for stage in range(stages)),
            stem_stride=stem[0],
            channels=stem[2],
            has_norm="norm/gamma" in shapes,
            has_pyramid_norms=any(f"pyramid_norm_{stage}/gamma" in shapes for stage in range(stages)),
            classes=shapes["head/bias"][0] if "head/bias" in shapes else None,
            decoder_dim=shapes["proj/bias"][0] if "proj/bias" in shapes else None,
            decoder_depth=count("decoder_{}"),
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            "these weights are an incomplete ConvNeXt V2: a stem, a norm or a bias is missing or has a wrong shape. "
            f"Received: {len(shapes)} weights ({error})"
        ) from error
