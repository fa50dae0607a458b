"""ConvNeXt V2 in Keras: layers, models, and self-supervised pre-training with FCMAE.

Where what is:

    models          sizes -> features (stem and stages, from layers/) -> models (classifiers), backbone (encoders)
    pre-training    fcmae/
    heads           segmentation/, detection/
    pictures        preprocessing (bytes to values), classes (their names), predict
    weights         checkpoints/ (files, naming dialects, the hub), restore (a model from its file), verify
    training        optim with layer_decay and adam_kernel, loss_scale, distribute, replicas
    inference       folded, quantized (whether a model is), export/
    the command     cli
    messages        arguments (checks with one wording), extras (packages that are not always there)
"""

from keras_cnv2 import detection as detection
from keras_cnv2 import distribute as distribute
from keras_cnv2 import segmentation as segmentation
from keras_cnv2.backbone import ConvNeXtV2Backbone as ConvNeXtV2Backbone
from keras_cnv2.checkpoints import CheckpointError as CheckpointError
from keras_cnv2.checkpoints import load_checkpoint as load_checkpoint
from keras_cnv2.checkpoints import save_checkpoint as save_checkpoint
from keras_cnv2.checkpoints import state_dict as state_dict
from keras_cnv2.classes import decode_predictions as decode_predictions
from keras_cnv2.export.errors import ExportError as ExportError
from keras_cnv2.export.litert import export_litert as export_litert
from keras_cnv2.export.onnx import export_onnx as export_onnx
from keras_cnv2.export.saved_model import export_saved_model as export_saved_model
from keras_cnv2.export.serving import export_serving as export_serving
from keras_cnv2.fcmae import FCMAE as FCMAE
from keras_cnv2.folded import fold as fold
from keras_cnv2.layers import GRN as GRN
from keras_cnv2.layers import ConvNeXtV2Block as ConvNeXtV2Block
from keras_cnv2.layers import DropPath as DropPath
from keras_cnv2.layers import MaskedDepthwiseConv2D as MaskedDepthwiseConv2D
from keras_cnv2.loss_scale import LossScaleOptimizer as LossScaleOptimizer
from keras_cnv2.models import ConvNeXtV2 as ConvNeXtV2
from keras_cnv2.models import ConvNeXtV2Atto as ConvNeXtV2Atto
from keras_cnv2.models import ConvNeXtV2Base as ConvNeXtV2Base
from keras_cnv2.models import ConvNeXtV2Femto as ConvNeXtV2Femto
from keras_cnv2.models import ConvNeXtV2Huge as ConvNeXtV2Huge
from keras_cnv2.models import ConvNeXtV2Large as ConvNeXtV2Large
from keras_cnv2.models import ConvNeXtV2Nano as ConvNeXtV2Nano
from keras_cnv2.models import ConvNeXtV2Pico as ConvNeXtV2Pico
from keras_cnv2.models import ConvNeXtV2Tiny as ConvNeXtV2Tiny
from keras_cnv2.optim import LayerDecayAdamW as LayerDecayAdamW
from keras_cnv2.optim import WarmupCosine as WarmupCosine
from keras_cnv2.preprocessing import load_image as load_image
from keras_cnv2.preprocessing import preprocess_input as preprocess_input

__version__ = "0.1.0"
