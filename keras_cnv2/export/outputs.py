"""A functional model with named outputs, from which the graphs of all formats are made."""

import keras

from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.heads import named_outputs
from keras_cnv2.models.stages import INPUT


def with_named_outputs(model):
    """Returns the model with a dict as its output, `named_outputs`."""
    names = named_outputs(model)
    if isinstance(model, (ConvNeXtV2, ConvNeXtV2Backbone)):
        return keras.Model(model.input, names, name=model.name)
    # Wrapped in a new model, because its own input has another name and the model may be part of other models.
    images = keras.Input(tuple(model.inputs[0].shape[1:]), name=INPUT)
    outputs = model(images)
    outputs = outputs if isinstance(outputs, dict) else dict(zip(names, keras.tree.flatten(outputs)))
    return keras.Model(images, outputs, name=model.name)
