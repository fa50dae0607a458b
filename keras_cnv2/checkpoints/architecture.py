"""What model a set of weights belongs to, from names and shapes alone."""

import itertools
from dataclasses import dataclass

from keras_cnv2.errors import CheckpointError


@dataclass(frozen=True)
class Architecture:
    """The model that weights fit.

    Args:
        depths: Blocks of each stage.
        dims: Channels of each stage.
        stem_stride: Stride of the stem.
        channels: Input channels.
        has_norm: Whether there is the classifier's last LayerNorm.
        has_pyramid_norms: Whether each level of the pyramid ends in a LayerNorm.
        classes: Number of classes, or `None` without a head.
        decoder_dim: Width of FCMAE's decoder, or `None` without one.
        decoder_depth: Its number of blocks.
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
    """Reads the architecture off the shapes of the weights.

    Args:
        shapes: Dict from Keras paths to shapes; those that are not known are `None`.

    Returns:
        An `Architecture`.

    Raises:
        CheckpointError: If too much is missing to tell.
    """

    def count(template):
        """How many blocks there are, numbered from 0 on without a gap."""
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
            "these weights are no whole ConvNeXt V2: a stem, a norm or a bias is missing or misshapen. "
            f"Received: {len(shapes)} weights ({error})"
        ) from error
