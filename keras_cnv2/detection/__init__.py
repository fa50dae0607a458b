"""Object detection: KerasCV's RetinaNet on backbones of this package, and the decoding of its predictions.

KerasCV is imported only when a model is built. The following parts do not depend on RetinaNet and also suit two-stage
detectors such as Mask R-CNN: `boxes` (overlap, deltas), `matching` (of anchors or proposals to boxes),
`heads.Pyramid`, `nms` and `pictures`.
"""

from keras_cnv2.detection.detector import Detector as Detector
from keras_cnv2.detection.labels import check_labels as check_labels
from keras_cnv2.detection.pictures import fit_picture as fit_picture
from keras_cnv2.detection.retinanet import retinanet as retinanet
