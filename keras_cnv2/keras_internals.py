"""The members of Keras that this package reads although they are not public, in one place.

They were tried with Keras 3.10 to 3.15. Two classes override or call further ones, because Keras has no other way to
change what they do: `LayerDecayAdamW` (the step of an optimizer) and `keras_cnv2.distribute.multi_worker`.
"""


def all_layers(layer):
    """Returns the layer itself and the layers inside of it, at any depth."""
    return [*layer._flatten_layers()]


def direct_layers(layer):
    """Returns the layers that are attributes of a layer, or in lists that are."""
    return layer._layers


def calls_of(operation):
    """Returns the nodes of the graph in which a layer or another operation is called; each has `input_tensors`."""
    return operation._inbound_nodes


def source_of(tensor):
    """Returns what computes a symbolic tensor: the operation, the number of its call, and which output it is."""
    return tensor._keras_history


def kernel_without_lora(layer):
    """Returns the variable of a layer's kernel. The property `kernel` adds the update of LoRA to it."""
    return layer._kernel


def set_policy(model, policy):
    """Sets a model's dtype policy. The public setter changes the global policy if `policy` is a map."""
    model._dtype_policy = policy


def micro_steps(optimizer):
    """Returns the variable that counts gradients. The public `iterations` is divided by the steps of accumulation."""
    return optimizer._iterations


def averages_of(optimizer):
    """Returns pairs of a variable and its moving average, for an optimizer with `use_ema`."""
    return zip(optimizer._trainable_variables, optimizer._model_variables_moving_average)
