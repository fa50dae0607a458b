"""Pictures and arrays to augmented batches.

    which           sources: from what a user wrote to one of folders, tfds, npz, arrays
    how it is kept  rows (files), tfds (rows of TensorFlow Datasets), npz; splits (what is held out)
    the pipeline    loader (tf.data: order, resuming, unreadable pictures), images (pictures with a class), shares (the
                    part of each batch that a worker loads), draws (random numbers), arrays (all of it without tf.data)
    augmentation    augment, rand_augment, affine, crops; windows (a part of a picture, rescaled)
    what is wrong   errors

This file, errors, splits, shares, draws, arrays, npz, augment and what it needs import no TensorFlow.
"""
