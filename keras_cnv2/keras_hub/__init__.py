"""ConvNeXt V2 in KerasHub's classes: presets, tasks, uploads. Needs the package keras-hub."""

from keras_cnv2.keras_hub.backbone import ConvNeXtV2Backbone as ConvNeXtV2Backbone
from keras_cnv2.keras_hub.classifier import ConvNeXtV2ImageClassifier as ConvNeXtV2ImageClassifier
from keras_cnv2.keras_hub.converter import ConvNeXtV2ImageConverter as ConvNeXtV2ImageConverter
from keras_cnv2.keras_hub.preprocessor import (
    ConvNeXtV2ImageClassifierPreprocessor as ConvNeXtV2ImageClassifierPreprocessor,
)
