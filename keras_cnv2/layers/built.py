import keras


def needs_build(layer):
    """Whether a layer's class overrides `build`. For layers of this package that have no weights.

    They are marked as built when they are created, since they need no shapes. A subclass of the user with a `build`
    of its own is not, so that Keras calls it.
    """
    return type(layer).build is not keras.layers.Layer.build
