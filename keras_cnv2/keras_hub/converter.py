from collections.abc import Sequence
from typing import Any, Self

import keras

from keras_cnv2.arguments import number
from keras_cnv2.images.normalization import channel_statistics
from keras_cnv2.images.pictures import crop_fraction
from keras_cnv2.keras_hub.backbone import PACKAGE, ConvNeXtV2Backbone
from keras_cnv2.models.pictures import framing_of
from keras_cnv2.optional_packages import import_keras_hub

keras_hub = import_keras_hub()


def scale_and_offset(mean, std):
    """Normalisation as KerasHub writes it, `x * scale + offset`, by mean and deviation in units of 0..1."""
    return tuple(1 / (255 * s) for s in std), tuple(-m / s for m, s in zip(mean, std))


SCALE, OFFSET = scale_and_offset(*channel_statistics(3))


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConvNeXtV2ImageConverter(keras_hub.layers.ImageConverter):
    """Resizes and normalises images for `ConvNeXtV2Backbone`, in float32.

    It differs from `keras_hub.layers.ImageConverter` in its default values, which are those of the published weights,
    and in the argument `crop_pct`. Images are best given as uint8: resized values are then rounded and clipped, as by
    `keras_cnv2.load_image`, from whose pixels the result differs little.

    ```python
    converter = keras_cnv2.keras_hub.ConvNeXtV2ImageConverter(image_size=(224, 224), crop_pct=0.875)
    x = converter(images)  # (N, 224, 224, 3), normalised
    ```

    Args:
        image_size: (height, width) of the converted images, or `None` to leave the size as it is.
        scale, offset: Floats, or sequences of one float for each channel: `x * scale + offset`. By default those of
            ImageNet's mean and deviation for RGB images in 0..255. `None` leaves the step out.
        crop_pct: Float in `(0, 1]`, the part of the resized image's sides that is kept: images are resized to
            `image_size / crop_pct`, and the centre is cut out.
        crop_to_aspect_ratio, pad_to_aspect_ratio, bounding_box_format, data_format, **kwargs: As in
            `keras_hub.layers.ImageConverter`: by default, images of another aspect ratio are cropped to that of
            `image_size` before they are resized.
        interpolation: String, the interpolation method, by default "bicubic".
        antialias: Bool, whether to filter when making images smaller, by default true.

    Call arguments:
        inputs: Image `(H, W, channels)`, images `(N, H, W, channels)`, a list of images, or a dict of "images" and
            "bounding_boxes".

    Returns:
        The same, with images of size `image_size`, normalised.

    Raises:
        ValueError: If an argument is out of range.
    """

    backbone_cls = ConvNeXtV2Backbone

    def __init__(
        self,
        image_size: Sequence[int] | None = None,
        scale: float | Sequence[float] | None = SCALE,
        offset: float | Sequence[float] | None = OFFSET,
        crop_pct: float = 1.0,
        interpolation: str = "bicubic",
        antialias: bool = True,
        dtype: str | keras.DTypePolicy = "float32",
        **kwargs: Any,
    ):
        number("crop_pct", crop_pct, "a number in (0, 1]", lambda x: 0 < x <= 1)
        super().__init__(
            scale=scale, offset=offset, interpolation=interpolation, antialias=antialias, dtype=dtype, **kwargs
        )
        self.crop_pct = crop_pct
        self._whole = self.resizing
        self._centre = keras.layers.CenterCrop(None, None, data_format=self.data_format, dtype=dtype, name="centre")
        self._centre.bounding_box_format = self.bounding_box_format
        # What KerasHub calls where `image_size` is given.
        self.resizing = keras.layers.Pipeline([self._whole, self._centre] if crop_pct < 1 else [self._whole])
        for layer in (self._whole, self._centre, self.resizing):
            layer.built = True  # `quantize` of a classifier refuses layers that were never called
        self.image_size = image_size

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the converted images, or `None`. It can be set."""
        return self._image_size

    @image_size.setter
    def image_size(self, value: Sequence[int] | None) -> None:
        self._image_size = None if value is None else tuple(map(int, value))
        height, width = self._image_size or (None, None)
        self._centre.height, self._centre.width = height, width
        self._whole.height, self._whole.width = (side and int(side / self.crop_pct) for side in (height, width))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "crop_pct": self.crop_pct}

    @classmethod
    def from_model(cls, model: keras.Model, **kwargs: Any) -> Self:
        """Makes the converter for a model of this package: of its image size, its crop, its mean and deviation.

        Args:
            model: A `keras_cnv2.ConvNeXtV2` or `keras_cnv2.ConvNeXtV2Backbone`.
            **kwargs: Arguments of the class that differ from the model's own.
        """
        scale, offset = scale_and_offset(*channel_statistics(model.input_shape[-1], model.mean, model.std))
        sides = model.input_shape[1:3]
        if None not in sides and sides[0] != sides[1]:
            own = {"image_size": sides, "crop_to_aspect_ratio": False}
        else:
            framing = framing_of(model)
            kept = crop_fraction(framing.resize)
            own = {
                "image_size": (framing.size, framing.size),
                "crop_to_aspect_ratio": kept is not None,
                "crop_pct": 1.0 if kept is None else kept,
            }
        return cls(**{"scale": scale, "offset": offset, **own, **kwargs})
