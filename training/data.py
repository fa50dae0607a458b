"""Images and labels: from where they are to batches."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Split(NamedTuple):
    """Images `(N, H, W, channels)` uint8 in 0..255, their labels `(N,)` int32."""

    images: np.ndarray
    labels: np.ndarray


def digits(image_size):
    """Scikit-learn's handwritten digits (1797 real scans of 8 x 8), enlarged, as a training and a test split.

    Args:
        image_size: Int, height and width in pixels.

    Returns:
        Two `Split`s, 80 and 20 percent, stratified and always the same.
    """
    scans = load_digits()
    images = keras.ops.image.resize(scans.images[..., None] * (255 / 16), (image_size, image_size), "bicubic")
    images = np.clip(np.rint(images), 0, 255).astype("uint8")
    labels = scans.target.astype("int32")
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    return Split(images[train], labels[train]), Split(images[test], labels[test])


def batches(arrays, batch_size, seed, augment=None):
    """Whole batches of the arrays, in a new order each epoch.

    Args:
        arrays: Array of images, or tuple of images and labels.
        batch_size: Int.
        seed: Int, fixes the order.
        augment: Optional function from a batch of images to another.

    Returns:
        A `tf.data.Dataset`.
    """
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    dataset = dataset.shuffle(len(dataset), seed=seed).batch(batch_size, drop_remainder=True)
    if augment:
        dataset = dataset.map(lambda images, labels: (augment(images), labels))
    return dataset.prefetch(tf.data.AUTOTUNE)


def shift_and_rotate(shift, rotation, seed):
    """Random shifts up to `shift` of the side and rotations up to `rotation` degrees; new pixels are black."""
    return keras.Sequential(
        [
            keras.layers.RandomTranslation(shift, shift, fill_mode="constant", seed=seed),
            keras.layers.RandomRotation(rotation / 360, fill_mode="constant", seed=seed),
        ]
    )
