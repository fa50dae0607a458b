"""Semantic segmentation: heads on a backbone, loss, metric and inference."""

from keras_cnv2.segmentation.deeplab import deeplab_v3_plus as deeplab_v3_plus
from keras_cnv2.segmentation.inference import Segmenter as Segmenter
from keras_cnv2.segmentation.inference import predict_classes as predict_classes
from keras_cnv2.segmentation.labels import check_labels as check_labels
from keras_cnv2.segmentation.loss import PixelCrossentropy as PixelCrossentropy
from keras_cnv2.segmentation.metrics import ConfusionMatrix as ConfusionMatrix
from keras_cnv2.segmentation.upernet import UPerNet as UPerNet
