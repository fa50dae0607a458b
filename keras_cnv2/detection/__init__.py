"""Object detection: KerasCV's RetinaNet and our Mask R-CNN (`two_stage`) on backbones of this package, and `Detector`,
which turns their predictions into detections.

KerasCV is imported only when a RetinaNet is built. Both share `boxes` (overlap, deltas), `matching` (of anchors or
proposals to boxes), `nms` and `pictures`.
"""

from keras_cnv2.detection.detector import Detector as Detector
from keras_cnv2.detection.labels import check_labels as check_labels
from keras_cnv2.detection.pictures import fit_picture as fit_picture
from keras_cnv2.detection.retinanet import retinanet as retinanet
from keras_cnv2.detection.two_stage.build import mask_rcnn as mask_rcnn
from keras_cnv2.detection.two_stage.paste import paste_masks as paste_masks
from keras_cnv2.detection.two_stage.variant import Variant as Variant
