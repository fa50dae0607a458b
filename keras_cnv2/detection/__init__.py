"""Object detection: RetinaNet of KerasCV on our backbones, and what makes boxes of its predictions.

KerasCV is imported when a model is built, not before. The parts are made for detectors in two stages as well, like
Mask R-CNN: `boxes` (overlap, deltas), `matching` (anchors or proposals to boxes), `heads.Pyramid`, `nms` and `pictures`
know nothing of RetinaNet.
"""

from collections import abc as _abc

from keras_cnv2.detection.detector import Detector as Detector
from keras_cnv2.detection.labels import check_labels as check_labels
from keras_cnv2.detection.pictures import fit_picture as fit_picture
from keras_cnv2.detection.retinanet import retinanet as retinanet

# For type checkers: `keras_cnv2` puts it here, from `keras_cnv2.export`, which imports from this package.
export_detector: _abc.Callable[..., None]
