"""The eight published sizes, one row each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """One published size.

    Args:
        depths: Number of blocks in each of the four stages.
        dims: Number of channels in each of the four stages.
        parameters: Number of parameters of the classifier with 1000 classes.
        gmacs: Multiply-accumulates for one 224 x 224 image, in units of 1e9.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    parameters: int
    gmacs: float


# ConvNeXt V2, section 3.3 and appendix A.1, and the official model file.
SIZES = {
    "atto": Size((2, 2, 6, 2), (40, 80, 160, 320), 3_708_400, 0.55),
    "femto": Size((2, 2, 6, 2), (48, 96, 192, 384), 5_233_240, 0.78),
    "pico": Size((2, 2, 6, 2), (64, 128, 256, 512), 9_066_280, 1.37),
    "nano": Size((2, 2, 8, 2), (80, 160, 320, 640), 15_623_800, 2.45),
    "tiny": Size((3, 3, 9, 3), (96, 192, 384, 768), 28_635_496, 4.47),
    "base": Size((3, 3, 27, 3), (128, 256, 512, 1024), 88_717_800, 15.4),
    "large": Size((3, 3, 27, 3), (192, 384, 768, 1536), 197_956_840, 34.4),
    "huge": Size((3, 3, 27, 3), (352, 704, 1408, 2816), 660_289_640, 115),
}


def get_size(name):
    """Returns the row of `SIZES` called `name`, or raises a `ValueError`."""
    if not isinstance(name, str) or name not in SIZES:
        raise ValueError(f"Unknown size. Allowed: {', '.join(SIZES)}. Received: size={name!r}")
    return SIZES[name]


def size_of(depths, dims):
    """Returns the name of the published size with these depths and dims, or `None`."""
    given = (tuple(depths), tuple(dims))
    return next((name for name, size in SIZES.items() if (size.depths, size.dims) == given), None)
