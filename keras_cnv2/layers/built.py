import keras


def needs_build(layer):
    """Whether a layer that has no weights here is of a subclass with a `build` of its own, which is then called.

    All others are built as soon as they are made: their shapes are nobody's concern.
    """
    return type(layer).build is not keras.layers.Layer.build
