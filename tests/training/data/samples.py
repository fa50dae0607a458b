"""Pictures in folders, and batches of them."""

import keras
import numpy as np
from PIL import Image

from training.data.shares import Share

FIELDS = {"image_size": 16, "batch_size": 4, "crop_area": (0.3, 1.0), "flip": True}


def photo(number, height=40, width=56):
    """A smooth picture, another one for each number."""
    y, x = np.mgrid[:height, :width] / 20
    waves = [np.sin(y * (1 + number % 3) + channel) + np.cos(x + number) for channel in range(3)]
    return (np.stack(waves, -1) * 60 + 128).astype("uint8")


def write(path, number=0, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(number)).convert(mode).save(path, **options)
    return path


def take(dataset, count):
    return [*dataset.take(count).as_numpy_iterator()]


def parts_of(load, workers, count):
    """The batches of each worker; `load` takes a share."""
    return [take(load(Share(worker, workers)), count) for worker in range(workers)]


def put_together(parts):
    return [keras.tree.map_structure(lambda *columns: np.concatenate(columns), *batch) for batch in zip(*parts)]


def assert_same(ones, twos):
    assert len(ones) == len(twos)
    for one, two in zip(ones, twos):
        keras.tree.map_structure(np.testing.assert_array_equal, one, two)


def prints_of(images):
    return [image.round().tobytes() for image in images]
