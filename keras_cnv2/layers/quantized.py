"""Detects quantized models: their weights are not loaded from checkpoints, written to checkpoints, or folded."""


def quantized_as(model):
    """The sorted quantization modes of a model's layers, such as "int8"; an empty list if none is quantized."""
    modes = {getattr(layer, "quantization_mode", None) for layer in model._flatten_layers()}
    return sorted(modes - {None})
