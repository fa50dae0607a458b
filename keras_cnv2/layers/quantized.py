"""Detects quantized models: their weights are not loaded from checkpoints, written to checkpoints, or folded."""

from keras_cnv2.keras_internals import all_layers


def quantized_as(model):
    """The sorted quantization modes of a model's layers, such as "int8"; an empty list if none is quantized."""
    modes = {getattr(layer, "quantization_mode", None) for layer in all_layers(model)}
    return sorted(modes - {None})
