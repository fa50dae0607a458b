import keras

from keras_cnv2.keras_hub.backbone import PACKAGE, ConvNeXtV2Backbone
from keras_cnv2.keras_hub.converter import ConvNeXtV2ImageConverter
from keras_cnv2.optional_packages import import_keras_hub

keras_hub = import_keras_hub()


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConvNeXtV2ImageClassifierPreprocessor(keras_hub.models.ImageClassifierPreprocessor):
    """Images and labels as `ConvNeXtV2ImageClassifier` takes them: images by its image converter, labels as they are.

    ```python
    from keras_cnv2.keras_hub import ConvNeXtV2ImageClassifierPreprocessor, ConvNeXtV2ImageConverter

    preprocessor = ConvNeXtV2ImageClassifierPreprocessor(ConvNeXtV2ImageConverter(image_size=(224, 224)))
    x = preprocessor(images)  # (N, 224, 224, 3), normalised
    ```

    Args:
        image_converter: A `ConvNeXtV2ImageConverter`, or `None` for images that are used as they are.
        **kwargs: As in `keras_hub.models.ImageClassifierPreprocessor`.

    Call arguments:
        x, y, sample_weight: Images `(N, H, W, channels)` or one image, and optionally labels and weights.

    Returns:
        `x`, `(x, y)` or `(x, y, sample_weight)`, whichever were given.
    """

    backbone_cls = ConvNeXtV2Backbone
    image_converter_cls = ConvNeXtV2ImageConverter
