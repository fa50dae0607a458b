"""The images that an export takes."""

from typing import NamedTuple

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.images.header import pixel_limit
from keras_cnv2.images.pictures import check_resize
from keras_cnv2.models.heads import stem_of, takes_pixels
from keras_cnv2.models.pictures import framing_of
from keras_cnv2.models.stages import total_stride

INPUT_DTYPES = ("float32", "uint8")


class Images(NamedTuple):
    """The images that an export takes.

    Args:
        shape: `(None, height, width, channels)`, `None` where the sides are variable.
        smallest: Int, the side of the smallest images in pixels.
        max_pixels: Int, height times width of the largest images.
        dtype: "float32" or "uint8".
    """

    shape: tuple[int | None, ...]
    smallest: int
    max_pixels: int
    dtype: str

    def checked(self, images):
        """Casts images to float32, with an error for shapes that no model can take. Servers do not check shapes."""
        import tensorflow as tf

        images = tf.ensure_shape(images, images.shape)
        shape = tf.shape(images, tf.int64)
        rules = [
            tf.debugging.assert_positive(shape[0], "Send at least one image"),
            tf.debugging.assert_greater_equal(
                tf.reduce_min(shape[1:3]),
                tf.constant(self.smallest, tf.int64),
                f"Sides have at least {self.smallest} pixels",
            ),
            tf.debugging.assert_less_equal(
                tf.reduce_prod(shape[1:3]),
                pixel_limit(self.max_pixels),
                f"Images have at most {self.max_pixels} pixels",
            ),
        ]
        with tf.control_dependencies([rule for rule in rules if rule is not None]):  # None: proven by the static shape
            return tf.cast(images, tf.float32)


def images_of(model, options, known=None):
    """Returns the images that an export takes.

    Args:
        model: The model, or the encoder in it that reads the images.
        options: `keras_cnv2.export.options.Options`.
        known: Height and width that the model takes, `None` where they are variable. By default those of its input.

    Raises:
        ValueError: If an option is out of range or does not fit the model.
    """
    check_resize(options.resize)
    check_input_dtype(model, options.input_dtype)
    smallest = total_stride(stem_of(model).strides[0])
    sides = known = known or tuple(model.input_shape[1:3])
    if (size := options.image_size) is not None:
        fits = is_positive_int(size) and size >= smallest
        if not fits or any(side not in (None, size) for side in known):
            raise ValueError(
                f"image_size must be an int of at least {smallest} that fits the model's input height and width, "
                f"{known}. Received: image_size={size!r}"
            )
        sides = size, size
    elif options.fixed:
        sides = tuple(side or framing_of(model).size for side in known)
    return Images((None, *sides, model.input_shape[-1]), smallest, options.reading.max_pixels, options.input_dtype)


def check_input_dtype(model, input_dtype):
    """Raises a `ValueError` unless the export can take images of this dtype."""
    if input_dtype not in INPUT_DTYPES:
        raise ValueError(f"input_dtype must be one of {INPUT_DTYPES}. Received: input_dtype={input_dtype!r}")
    if input_dtype == "uint8" and not takes_pixels(model):
        raise ValueError(
            'Models with include_preprocessing=False take normalised images, input_dtype="float32". '
            f"Received: input_dtype={input_dtype!r}"
        )
