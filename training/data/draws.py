"""Stateless random numbers for keras.random, as a function of a key, on any backend."""

import numbers

import keras
import numpy as np
from keras import ops


class Draws(keras.random.SeedGenerator):
    """Generates seeds that depend only on a key and on how many seeds were drawn before.

    Replaces `keras.random.SeedGenerator` wherever Keras takes one as `seed`. There is no state to save: the same key
    gives the same draws in any order, in parallel and after a restart. Different keys give unrelated draws.

    Args:
        *key: Ints or integer scalar tensors, e.g. a seed and the position of an image in the whole training. The low
            64 bits of each are used.
    """

    def __init__(self, *key):
        # Does not call super().__init__(), which would create a variable.
        self._state = _bits([0x9E3779B9, 0x7F4A7C15])
        for part in key:
            for word in _words(part):
                self._state = _scramble(self._state, word)
        self._calls = 0

    def next(self, ordered=True):
        """Returns a new seed: two 32-bit integers."""
        self._calls += 1
        return _scramble(self._state, _bits(self._calls))


def _bits(values):
    """Returns integers below 2**32 in a dtype that the backend can compute with and accepts as a seed."""
    return ops.convert_to_tensor(np.array(values, "uint32" if keras.backend.backend() == "jax" else "int64"))


def _words(part):
    """Returns the low and the high 32 bits of an integer."""
    if isinstance(part, numbers.Integral):
        return _bits(int(part) & 0xFFFFFFFF), _bits(int(part) >> 32 & 0xFFFFFFFF)
    part = ops.convert_to_tensor(part)
    wide = keras.backend.standardize_dtype(part.dtype) in ("int64", "uint64")
    parts = (part, ops.right_shift(part, 32) if wide else ops.zeros_like(part))
    mask = _bits(0xFFFFFFFF)
    return tuple(ops.bitwise_and(ops.cast(x, mask.dtype), mask) for x in parts)


def _scramble(state, word):
    """Hashes a word into a state: each input bit affects half of the output bits; different words never collide."""
    # The finalizer of MurmurHash3.
    x = ops.bitwise_xor(state, word)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = ops.bitwise_xor(x, ops.right_shift(x, shift))
        x = ops.bitwise_and(x * _bits(factor), _bits(0xFFFFFFFF))
    return ops.bitwise_xor(x, ops.right_shift(x, 16))
