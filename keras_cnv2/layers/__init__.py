"""The layers that ConvNeXt V2 is built from."""

from keras_cnv2.layers.block import ConvNeXtV2Block as ConvNeXtV2Block
from keras_cnv2.layers.drop_path import DropPath as DropPath
from keras_cnv2.layers.grn import GRN as GRN
from keras_cnv2.layers.layer_norm import LayerNorm as LayerNorm
from keras_cnv2.layers.masked_conv import MaskedDepthwiseConv2D as MaskedDepthwiseConv2D
