"""Data source for images that fit into memory, on any backend of Keras. Imports no TensorFlow."""

import contextlib
import itertools
from typing import NamedTuple

import keras
import numpy as np

from ..compiled import compiled
from ..draws import Draws
from ..shares import WHOLE
from ..splits import hold_out
from . import augment


class Split(NamedTuple):
    """Images `(N, H, W, channels)`, uint8 in 0..255 or float32 of about that range, and int32 labels `(N,)`."""

    images: np.ndarray
    labels: np.ndarray

    def at(self, places):
        """Returns a `Split` of the images and labels at these indices."""
        return Split(self.images[places], self.labels[places])

    def mixed(self, count=None):
        """Returns `count` of them, or all, in a fixed random order: files are often sorted by class."""
        return self.at(np.random.default_rng(0).permutation(len(self.images))[:count])


class Arrays:
    """Training and test images, a `training.data.source.Source`.

    Args:
        train: `Split`.
        test: `Split`, or `None`.
        class_names: One string for each class.
        taken: Optional dict of statistics of the training images that were used to scale all images.
    """

    def __init__(self, train, test, class_names, taken=None):
        self.train = train
        self.test = test
        self.taken = taken or {}
        self.class_names = tuple(class_names)
        self.size = len(train.images)
        self.validation_size = len(test.images) if test else 0
        self.channels = train.images.shape[-1]

    def with_held_out(self, share, seed):
        """Returns `Arrays` with a share of each class's training images as test images, unless there are some already.

        Args:
            share: Float from 0 to 1; with 1, no training images remain.
            seed: Int, decides which images are held out.
        """
        if self.test or not share:
            return self
        rows = [np.flatnonzero(self.train.labels == label).tolist() for label in np.unique(self.train.labels)]
        parts = zip(*(hold_out(numbers, share, seed) for numbers in rows))
        train, test = (self.train.at(np.array(sorted(itertools.chain(*part)), int)) for part in parts)
        return Arrays(train, test if len(test.labels) else None, self.class_names, self.taken)

    def with_share(self, share, seed):
        """Returns `Arrays` with only a share of each class's training images, at least one.

        Args:
            share: Float above 0 and up to 1.
            seed: Int, decides which images are kept.
        """
        if share == 1:
            return self
        order = np.random.default_rng(seed).permutation(self.size)
        labels = self.train.labels[order]
        counts = np.bincount(labels)
        # Rank of each image within its class, in this order.
        places = np.concatenate([np.arange(count) for count in counts])[np.argsort(np.argsort(labels, kind="stable"))]
        kept = np.sort(order[places < np.maximum(np.round(share * counts), 1)[labels]])
        return Arrays(self.train.at(kept), self.test, self.class_names, self.taken)

    def training(self, recipe, first_batch=0, augmentation=None, share=WHOLE):
        """Returns endless batches from `first_batch` on: images, or with an augmentation, images and soft targets."""
        return Batches(self.train, recipe, first_batch, augmentation, share)

    def validation(self, recipe, batch_size, share=WHOLE, mixed=False):
        """Returns the test images in order, or `mixed`, with one-hot labels and weights; `None` if there are none."""
        if self.test is None:
            return None
        test = self.test.mixed() if mixed else self.test
        return Ordered(test, batch_size, len(self.class_names), share)

    def examples(self, recipe, count, labelled=False):
        """Returns a fixed selection of test images, or else training images; if `labelled`, also their labels."""
        images, labels = (self.test or self.train).mixed(count)
        return (images, labels) if labelled else images

    def look(self, memory=None):
        """Does nothing: the arrays were checked when they were read."""

    def clear_errors(self):
        """A context that does nothing: arrays in memory cause no pipeline errors."""
        return contextlib.nullcontext()


class Batches(keras.utils.PyDataset):
    """Endless full batches, in a new order each epoch. A batch depends only on the seed and its number.

    Args:
        split: `Split`.
        recipe: The recipe: batch size, seed, crops and flips.
        first_batch: Number of the first batch.
        augmentation: Optional `training.data.images.augment.Augmentation`.
        share: `training.data.shares.Share`, the part of each batch that is returned. The whole batch is computed, so
            that mixup and CutMix pair the same images for any number of workers.
    """

    num_batches = None

    def __init__(self, split, recipe, first_batch=0, augmentation=None, share=WHOLE):
        super().__init__()
        self.split = split
        self.recipe = recipe
        self.first_batch = first_batch
        self.augmentation = augmentation
        self.part = share.of(recipe.step_batch)
        self.steps = recipe.steps_per_epoch(len(split.images))
        self._order = (None, None)
        # For alternating flips only: 1 for images that are mirrored in even epochs, 0 for the others.
        self._flipped = np.random.default_rng([recipe.seed]).integers(0, 2, len(split.images), "int32")
        self._augment = compiled(self._changed)

    def __getitem__(self, index):
        number, size = self.first_batch + index, self.recipe.step_batch
        epoch, step = divmod(number, self.steps)
        chosen = self._order_of(epoch)[step * size : (step + 1) * size]
        columns = (self.split.images[chosen], self.split.labels[chosen], self._flipped[chosen])
        batch = self._augment(*columns, np.int32(number), np.int32(epoch))
        return keras.tree.map_structure(lambda column: keras.ops.convert_to_numpy(column)[self.part], batch)

    def _changed(self, images, labels, flipped, number, epoch):
        """Returns the augmented batch."""
        draws = Draws(self.recipe.seed, number)
        images = augment.resized_crops(images, self.recipe.crop_area, draws)
        if images.shape[1] > self.recipe.image_size:
            images = keras.ops.image.resize(images, (self.recipe.image_size,) * 2, antialias=True)
        if self.recipe.alternate_flip:
            images = augment.flips_in_turns(images, flipped, epoch)
        elif self.recipe.flip:
            images = augment.flips(images, draws)
        if self.recipe.shift:
            images = augment.over(lambda image, draws: augment.shift(image, self.recipe.shift, draws), images, draws)
        if self.augmentation is None:
            return images
        if self.augmentation.rand_augment or self.augmentation.erasing or self.augmentation.cutout:
            images = augment.over(self.augmentation.image, images, draws)
        return self.augmentation.batch(images, labels, draws)

    def _order_of(self, epoch):
        if self._order[0] != epoch:
            rng = np.random.default_rng([self.recipe.seed, epoch])
            self._order = (epoch, rng.permutation(len(self.split.images)))
        return self._order[1]


class Ordered(keras.utils.PyDataset):
    """All images once, in order, with one-hot labels and weights. The last batch is padded, with weight 0.

    Args:
        split: `Split`.
        batch_size: Int.
        classes: Int, the number of classes.
        share: `training.data.shares.Share`, the part of each batch that is returned.
    """

    def __init__(self, split, batch_size, classes, share=WHOLE):
        super().__init__()
        self.split = split
        self.batch_size = batch_size
        self.classes = classes
        self.part = share.of(batch_size)

    @property
    def num_batches(self):
        return -(-len(self.split.images) // self.batch_size)

    def __getitem__(self, index):
        places = np.arange(index * self.batch_size, (index + 1) * self.batch_size)[self.part]
        weights = (places < len(self.split.images)).astype("float32")
        places = np.minimum(places, len(self.split.images) - 1)
        targets = (self.split.labels[places, None] == np.arange(self.classes)).astype("float32")
        return self.split.images[places], targets, weights


def digits(image_size):
    """Loads scikit-learn's handwritten digits (1797 scans of 8 x 8 pixels), enlarged; a fixed 80 % is for training.

    Args:
        image_size: Int, height and width in pixels.

    Returns:
        `Arrays`.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans = load_digits()
    images = (scans.images[..., None] * (255 / 16)).astype("float32")
    images = keras.ops.convert_to_numpy(keras.ops.image.resize(images, (image_size, image_size), "bicubic"))
    images = np.clip(np.rint(images), 0, 255).astype("uint8")
    labels = scans.target.astype("int32")
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    whole = Split(images, labels)
    return Arrays(whole.at(train), whole.at(test), class_names=map(str, range(10)))
