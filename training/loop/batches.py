"""Batches for `fit`. Imports no TensorFlow."""

import itertools

import keras


def endless(batches):
    """Returns endless batches as `fit` takes them: those of a `keras.utils.PyDataset` as a generator.

    Keras's adapter of a `PyDataset` cannot begin another epoch after `callbacks.Position` has ended one early.
    """
    if not isinstance(batches, keras.utils.PyDataset):
        return batches
    numbered = map(batches.__getitem__, itertools.count())
    return (batch if isinstance(batch, tuple) else (batch,) for batch in numbered)
