"""ConvNeXt V2 in Keras: layers, models, and self-supervised pre-training with FCMAE.

Map of the package. Each module or folder imports only from those above it:

    arguments           checks of arguments, with one wording
    errors              CheckpointError, ExportError
    files               files and folders that are written completely or not at all
    terminal            text that is safe to print on a terminal
    optional_packages   packages that are imported on first use
    keras_internals     members of Keras that are not public
    sizes               the eight published sizes
    distribute/         support for MultiWorkerMirroredStrategy; sums over replicas
    kernels/            faster code for the same numbers: training with TensorFlow on CPUs
    layers/             GRN, DropPath, LayerNorm, the masked convolution, the block
    images/             normalization, image files (encoded bytes to square RGB images), class names
    optimizers/         AdamW and Muon with layer-wise learning-rate decay, a schedule, loss scaling
    checkpoints/        loading and saving of weights: registry, hub, readers, names, conversion
    folding/            the same outputs with fewer operations, for inference
    models/             stem and stages as a graph, classifiers, backbones
    fcmae/              masking, encoders, the model
    segmentation/       heads, loss, metric, inference
    detection/          heads, loss, inference
    restore             a model from any weights file
    pretrained/         folders for transformers, timm and Keras: written, uploaded to the hub
    export/             SavedModel, serving folders, LiteRT, ONNX
    keras_hub/          KerasHub's classes on these layers; imported by its own name, `keras_cnv2.keras_hub`
    commands/           the command `keras-cnv2`
"""

from keras_cnv2 import detection as detection
from keras_cnv2 import distribute as distribute
from keras_cnv2 import segmentation as segmentation
from keras_cnv2.checkpoints import CheckpointError as CheckpointError
from keras_cnv2.checkpoints import load_checkpoint as load_checkpoint
from keras_cnv2.checkpoints import save_checkpoint as save_checkpoint
from keras_cnv2.checkpoints import state_dict as state_dict
from keras_cnv2.errors import ExportError as ExportError
from keras_cnv2.export.litert.export import export_litert as export_litert
from keras_cnv2.export.onnx import export_onnx as export_onnx
from keras_cnv2.export.saved_model.export import export_saved_model as export_saved_model
from keras_cnv2.export.serving.export import export_serving as export_serving
from keras_cnv2.fcmae import FCMAE as FCMAE
from keras_cnv2.folding.fold import fold as fold
from keras_cnv2.images.classes import decode_predictions as decode_predictions
from keras_cnv2.images.normalization import preprocess_input as preprocess_input
from keras_cnv2.images.pictures import load_image as load_image
from keras_cnv2.layers import GRN as GRN
from keras_cnv2.layers import ConvNeXtV2Block as ConvNeXtV2Block
from keras_cnv2.layers import DropPath as DropPath
from keras_cnv2.layers import MaskedDepthwiseConv2D as MaskedDepthwiseConv2D
from keras_cnv2.models.backbone import ConvNeXtV2Backbone as ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2 as ConvNeXtV2
from keras_cnv2.models.classifier import ConvNeXtV2Atto as ConvNeXtV2Atto
from keras_cnv2.models.classifier import ConvNeXtV2Base as ConvNeXtV2Base
from keras_cnv2.models.classifier import ConvNeXtV2Femto as ConvNeXtV2Femto
from keras_cnv2.models.classifier import ConvNeXtV2Huge as ConvNeXtV2Huge
from keras_cnv2.models.classifier import ConvNeXtV2Large as ConvNeXtV2Large
from keras_cnv2.models.classifier import ConvNeXtV2Nano as ConvNeXtV2Nano
from keras_cnv2.models.classifier import ConvNeXtV2Pico as ConvNeXtV2Pico
from keras_cnv2.models.classifier import ConvNeXtV2Tiny as ConvNeXtV2Tiny
from keras_cnv2.optimizers.layer_decay_adamw import LayerDecayAdamW as LayerDecayAdamW
from keras_cnv2.optimizers.layer_decay_muon import LayerDecayMuon as LayerDecayMuon
from keras_cnv2.optimizers.loss_scale import LossScaleOptimizer as LossScaleOptimizer
from keras_cnv2.optimizers.schedules import WarmupCosine as WarmupCosine
from keras_cnv2.pretrained.save import save_pretrained as save_pretrained
from keras_cnv2.restore import from_pretrained as from_pretrained

__version__ = "0.1.0"
