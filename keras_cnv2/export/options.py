"""The arguments of exports that only the kind of the model can interpret."""

from collections.abc import Sequence
from typing import NamedTuple

from keras_cnv2.images.pictures import READING, Reading


class Options(NamedTuple):
    """What an export was asked for. Arguments that a format does not have keep their defaults.

    Args:
        image_size, resize, class_names, input_dtype, top, fold: As in `keras_cnv2.export_saved_model`.
        reading: `keras_cnv2.images.pictures.Reading`, how image files are read.
        fixed: Bool, whether height and width must be fixed: where they are variable, the model's `image_size` or 224.
    """

    image_size: int | None = None
    resize: str | None = None
    class_names: Sequence[str] | None = None
    input_dtype: str = "float32"
    top: int = 5
    reading: Reading = READING
    fold: bool = True
    fixed: bool = False
