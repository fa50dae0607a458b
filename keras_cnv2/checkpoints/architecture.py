"""Finds the model that a set of weights belongs to, from their names and shapes alone."""

import itertools
from dataclasses import dataclass

from keras_cnv2.errors import CheckpointError


@dataclass(frozen=True)
class Architecture:
    """The architecture of the model that a set of weights fits.

    Args:
        depths: Number of blocks in each stage.
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


def architecture_of(shapes):
    """Derives the architecture from the shapes of the weights.

    Args:
        shapes: Dict from Keras paths to shapes; a shape that is not known is `None`.

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
            depths=tuple(count(f"stages_{stage}_{{}}") for stage in range(4)),
            dims=tuple(shapes[f"stages_{stage}_0/norm/gamma"][0] for stage in range(4)),
            stem_stride=stem[0],
            channels=stem[2],
            has_norm="norm/gamma" in shapes,
            has_pyramid_norms="pyramid_norm_0/gamma" in shapes,
            classes=shapes["head/bias"][0] if "head/bias" in shapes else None,
            decoder_dim=shapes["proj/bias"][0] if "proj/bias" in shapes else None,
            decoder_depth=count("decoder_{}"),
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            "these weights are an incomplete ConvNeXt V2: a stem, a norm or a bias is missing or has a wrong shape. "
            f"Received: {len(shapes)} weights ({error})"
        ) from error
