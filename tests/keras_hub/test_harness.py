"""KerasHub's own tests of a backbone, a task, its preprocessing and presets, run on ours."""

import keras
import numpy as np
import pytest
from keras_hub.layers import DeepLabV3ImageConverter, RetinaNetImageConverter
from keras_hub.models import (
    DeepLabV3Backbone,
    DeepLabV3ImageSegmenter,
    DeepLabV3ImageSegmenterPreprocessor,
    RetinaNetBackbone,
    RetinaNetObjectDetector,
    RetinaNetObjectDetectorPreprocessor,
)

from keras_cnv2.keras_hub import (
    ConvNeXtV2Backbone,
    ConvNeXtV2ImageClassifier,
    ConvNeXtV2ImageClassifierPreprocessor,
    ConvNeXtV2ImageConverter,
)
from tests.segmentation.small import with_values

test_case = pytest.importorskip("keras_hub.src.tests.test_case")  # imports grain, which the extra "test" has

pytestmark = pytest.mark.slow

SMALL = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10), "image_shape": (32, 32, 3)}
CONVERTER = ConvNeXtV2ImageConverter(image_size=(32, 32), crop_pct=0.8)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3), "uint8")
UNCOMPILED = {"jit_compile": False}  # XLA would take most of the time


def normalised():
    return keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), "float32")


class BackboneTest(test_case.TestCase):
    def test_backbone(self):
        """Serialization, prediction, the three policies of half precision, int8 and float8, the pyramid."""
        self.run_vision_backbone_test(
            cls=ConvNeXtV2Backbone,
            init_kwargs={**SMALL, "drop_path_rate": 0.1},
            input_data=normalised(),
            expected_output_shape=(2, 1, 1, 10),
            expected_pyramid_output_keys=["P2", "P3", "P4", "P5"],
            expected_pyramid_image_sizes=[(8, 8), (4, 4), (2, 2), (1, 1)],
            run_data_format_check=False,  # "channels_first" is refused
        )

    def test_saving(self):
        self.run_model_saving_test(ConvNeXtV2Backbone, SMALL, normalised())

    def test_preset(self):
        backbone = with_values(ConvNeXtV2Backbone(**SMALL))
        backbone.save_to_preset(self.get_temp_dir())
        self.run_preset_test(
            ConvNeXtV2Backbone, self.get_temp_dir(), normalised(), expected_output=backbone(normalised())
        )


class ClassifierTest(test_case.TestCase):
    def preprocessor(self):
        return ConvNeXtV2ImageClassifierPreprocessor(CONVERTER)

    def test_task(self):
        """Serialization, prediction and training, with arrays, datasets, and datasets that are preprocessed before."""
        self.run_task_test(
            cls=ConvNeXtV2ImageClassifier,
            init_kwargs={
                "backbone": ConvNeXtV2Backbone(**SMALL),
                "num_classes": 3,
                "preprocessor": self.preprocessor(),
            },
            train_data=(PIXELS, np.array([0, 2])),
            expected_output_shape=(2, 3),
            compile_kwargs=UNCOMPILED,
        )

    def test_saving(self):
        self.run_model_saving_test(
            cls=ConvNeXtV2ImageClassifier,
            init_kwargs={"backbone": ConvNeXtV2Backbone(**SMALL), "num_classes": 3, "activation": "softmax"},
            input_data=normalised(),
        )

    def test_preset(self):
        folder = self.get_temp_dir()
        classifier = with_values(ConvNeXtV2ImageClassifier(ConvNeXtV2Backbone(**SMALL), 3, self.preprocessor()))
        classifier.save_to_preset(folder)
        x = normalised()
        self.run_preset_test(ConvNeXtV2ImageClassifier, folder, x, expected_output=classifier(x))
        for cls in (ConvNeXtV2ImageClassifierPreprocessor, ConvNeXtV2ImageConverter):
            self.run_preset_test(cls, folder, PIXELS, expected_output=CONVERTER(PIXELS))

    def test_preprocessing(self):
        """Alone, in tf.data and in Grain."""
        self.run_preprocessing_layer_test(ConvNeXtV2ImageConverter, {"image_size": (32, 32), "crop_pct": 0.8}, PIXELS)


class HeadsTest(test_case.TestCase):
    """KerasHub's tasks for dense prediction, with our backbone as their encoder."""

    def run_head_test(self, cls, arguments, train_data):
        self.run_task_test(cls=cls, init_kwargs=arguments, train_data=train_data, compile_kwargs=UNCOMPILED)
        task, folder = with_values(cls(**arguments)), self.get_temp_dir()
        task.save_to_preset(folder)
        self.run_preset_test(cls, folder, normalised(), expected_output=task(normalised()))

    def test_segmenter(self):
        backbone = DeepLabV3Backbone(
            image_encoder=ConvNeXtV2Backbone(**SMALL),
            spatial_pyramid_pooling_key="P5",
            upsampling_size=8,
            dilation_rates=[1],
            low_level_feature_key="P2",
            projection_filters=4,
            image_shape=(32, 32, 3),
        )
        converter = DeepLabV3ImageConverter(image_size=(32, 32), scale=CONVERTER.scale, offset=CONVERTER.offset)
        preprocessor = DeepLabV3ImageSegmenterPreprocessor(converter)
        self.run_head_test(
            DeepLabV3ImageSegmenter,
            {"backbone": backbone, "num_classes": 3, "preprocessor": preprocessor},
            (PIXELS.astype("float32"), np.zeros((2, 32, 32, 3))),
        )

    def test_detector(self):
        backbone = RetinaNetBackbone(
            ConvNeXtV2Backbone(**SMALL, pyramid_norms=True),
            min_level=3,
            max_level=5,
            use_p5=False,
            image_shape=(32, 32, 3),
        )
        converter = RetinaNetImageConverter(
            image_size=(32, 32), scale=CONVERTER.scale, offset=CONVERTER.offset, bounding_box_format="yxyx"
        )
        self.run_head_test(
            RetinaNetObjectDetector,
            {
                "backbone": backbone,
                "num_classes": 3,
                "pre_logits_num_conv_layers": 1,
                "preprocessor": RetinaNetObjectDetectorPreprocessor(converter),
            },
            (
                PIXELS.astype("float32"),
                {"boxes": np.float32([[[4, 4, 30, 30]], [[0, 10, 20, 40]]]), "labels": np.float32([[0], [2]])},
            ),
        )
