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


def quick_decode(contents):
    """Decodes what tests write, in one operation."""
    import tensorflow as tf

    return tf.ensure_shape(tf.io.decode_image(contents, 3, expand_animations=False), (None, None, 3))


def quick_check(reading, contents, orientation, size=0):
    """Refuses what begins neither as a PNG nor as a JPEG."""
    import tensorflow as tf

    is_right = tf.reduce_any(tf.strings.substr(contents, 0, 3) == [b"\x89PN", b"\xff\xd8\xff"])
    with tf.control_dependencies([tf.debugging.Assert(is_right, ["Not an image"])]):
        return tf.identity(contents)


def quick_crop(contents, size, area, flip, draws, reading):
    """A square of a picture's own pixels; its place is drawn, unless the whole picture was to be kept."""
    import tensorflow as tf

    pixels = quick_decode(contents)
    place = keras.random.uniform((2,), seed=draws) * (0.0 if area == (1.0, 1.0) else 1.0)
    top, left = tf.unstack(tf.cast(place * tf.cast(tf.shape(pixels)[:2] - size, "float32"), "int32"))
    return tf.ensure_shape(tf.cast(pixels[top : top + size, left : left + size], "float32"), (size, size, 3))


def take(dataset, count=99):
    """The first batches as arrays. Optimising a dataset takes longer than they do."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return [*dataset.take(count).with_options(options).as_numpy_iterator()]


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
