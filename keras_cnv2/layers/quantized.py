"""Whether Keras has quantized a model: what the package does not fill from checkpoints, write to them or fold."""


def quantized_as(model):
    """The modes in which `quantize` was called on layers of a model, like "int8", sorted; an empty list for none."""
    modes = {getattr(layer, "quantization_mode", None) for layer in model._flatten_layers()}
    return sorted(modes - {None})
