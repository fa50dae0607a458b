"""Pictures and arrays to augmented batches.

    which           sources: from what a user wrote to one of folders, tfds, arrays
    how it is kept  rows (files), tfds (rows of TensorFlow Datasets); splits
    the pipeline    loader (tf.data: order, resuming, unreadable pictures), images (pictures with a class), shares (the
                    part of each batch that a worker loads), draws (random numbers), arrays (all of it without tf.data)
    augmentation    augment, rand_augment, affine, crops; windows (a part of a picture, rescaled)

This file, shares, draws, arrays, augment and what it needs import no TensorFlow.
"""
