"""Pictures with an EXIF orientation are trained on as they are seen, with the labels that are drawn on them."""

import io
import json
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_cnv2.images.orientation import TRANSPOSED
from keras_cnv2.images.pictures import Reading
from tests.training.data.boxes import small as boxes
from tests.training.data.samples import photo
from tests.training.data.scenes.small import recipe as scenes_recipe
from training.data.boxes.augment import jitter
from training.data.boxes.folders import CocoFolder
from training.data.boxes.masks import encode
from training.data.draws import Draws
from training.data.images.crops import random_crop
from training.data.scenes.folders import SceneFolder

SIDEWAYS = 6


def encoded(pixels, kind="PNG", orientation=None):
    exif = Image.Exif()
    if orientation:
        exif[0x112] = orientation
    file = io.BytesIO()
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(file, kind, exif=exif, **options)
    return file.getvalue()


def upright(contents, kind):
    """A file of the picture as it is seen."""
    return encoded(np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))), kind)


@pytest.fixture(scope="module")
def crop():
    @partial(tf.function, autograph=False)
    def crop(contents, key):
        return random_crop(contents, 16, (0.3, 1.0), False, Draws(0, key))

    return crop


@pytest.fixture(scope="module")
def jittered():
    recipe = boxes.recipe(image_size=32, scale=(0.5, 2.0), flip=True)

    @partial(tf.function, autograph=False)
    def jittered(contents, orientation, masks, key):
        draws = Draws(0, key)
        return jitter(contents, np.float32([[3, 4, 20, 30]]), np.int32([1]), recipe, draws, orientation, masks)

    return jittered


@pytest.mark.parametrize("orientation", [4, 6, 7])
class TestParts:
    """The same part of the picture is taken, though stored elsewhere; of a JPEG no more is decoded."""

    @pytest.mark.parametrize(("kind", "largest"), [("PNG", 0), ("JPEG", 4)])
    def test_crops(self, crop, kind, largest, orientation):
        contents = encoded(photo(1), kind, orientation)
        for key in range(2):
            files = (tf.constant(each) for each in (contents, upright(contents, kind)))  # bytes would be traced each
            one, other = (crop(each, tf.constant(key)).numpy() for each in files)
            assert np.abs(one - other).max() <= largest

    @pytest.mark.parametrize(("kind", "largest"), [("PNG", 0), ("JPEG", 4)])
    def test_boxes(self, jittered, kind, largest, orientation):
        """And masks, which are of the picture as it is seen."""
        contents = encoded(photo(1), kind, orientation)
        sides = (40, 56) if orientation >= TRANSPOSED else (56, 40)
        masks = tf.constant(encode(boxes.mask_of((3, 4, 20, 30), *sides)[None]))
        for key in range(2):
            one = jittered(tf.constant(contents), tf.constant(orientation), masks, tf.constant(key))
            other = jittered(tf.constant(upright(contents, kind)), tf.constant(1), masks, tf.constant(key))
            assert np.abs(one[0] - other[0]).max() <= largest
            np.testing.assert_array_equal(one[1], other[1])
            np.testing.assert_array_equal(one[3], other[3])
            assert np.any(one[3])


@pytest.fixture
def scenes(tmp_path):
    """Two pictures that are seen upright: labels of the first are as it is seen, those of the second as stored."""
    numbers = np.repeat(np.arange(3, dtype="uint8"), 10)[:, None] * np.ones((1, 40), "uint8")
    colours = np.uint8([[200, 0, 0], [0, 200, 0], [0, 0, 200]])[numbers]
    for name, labels in (("seen", np.rot90(numbers, -1)), ("stored", numbers)):
        for folder in ("images", "labels"):
            (tmp_path / folder / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images/train" / f"{name}.png").write_bytes(encoded(colours, orientation=SIDEWAYS))
        Image.fromarray(labels).save(tmp_path / "labels/train" / f"{name}.png")
    return tmp_path


class TestScenes:
    def test_labels_as_seen_and_as_stored(self, scenes, caplog):
        source = SceneFolder(scenes, classes=3, validation_share=1.0)
        found = {name: (pixels, labels) for pixels, labels, name in source.whole()}
        shapes = {name.rsplit("/", 1)[-1]: labels.shape for name, (_, labels) in found.items()}
        assert shapes == {"seen.png": (40, 30), "stored.png": (30, 40)}
        for pixels, labels in found.values():
            np.testing.assert_array_equal(pixels.argmax(-1), labels)
        assert caplog.text.count("such pictures are not turned") == 1
        assert "stored.png" in caplog.text

    def test_labels_with_an_orientation_of_their_own(self, scenes):
        (scenes / "images/train/stored.png").unlink()
        labels = scenes / "labels/train/seen.png"
        labels.write_bytes(encoded(np.rot90(np.asarray(Image.open(labels))), orientation=SIDEWAYS))
        ((pixels, found, _),) = SceneFolder(scenes, classes=3, validation_share=1.0).whole()
        np.testing.assert_array_equal(pixels.argmax(-1), found)

    def test_not_at_all(self, scenes):
        (scenes / "images/train/seen.png").unlink()
        source = SceneFolder(scenes, classes=3, validation_share=1.0, reading=Reading(exif_orientation=False))
        images, labels = source.examples(scenes_recipe(image_size=40), 1)
        np.testing.assert_array_equal(images[0, :30].argmax(-1), labels[0, :30])


@pytest.mark.parametrize(("as_seen", "unturned"), [(True, 0), (False, 1)])
def test_boxes_of_coco(tmp_path, caplog, as_seen, unturned):
    """And their masks."""
    objects = [("red", (2, 3, 12, 13))]

    def fill(content):
        for row, (_, (left, top, right, bottom)) in zip(content["annotations"], objects * 4):
            row["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]

    folder = boxes.write_coco(tmp_path, "train", range(4), lambda number: objects, fill)
    for number in range(4):
        pixels = boxes.picture(objects)
        stored = np.rot90(pixels) if as_seen else pixels
        (folder / "train" / f"{number:012}.png").write_bytes(encoded(stored, orientation=SIDEWAYS))
    content = json.loads((folder / "annotations/instances_train.json").read_text())
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (boxes.WIDTH, boxes.HEIGHT)
    source = CocoFolder(folder, validation_share=0.5, masks=True)
    for images, found, weights in source.validation(boxes.recipe(masks=True), 2).as_numpy_iterator():
        assert weights.tolist() == [1, 1]
        for image, box, mask in zip(images, found["boxes"], found["masks"]):
            assert boxes.extent(image, "red") == tuple(box[0])
            np.testing.assert_array_equal(mask[0], image[..., 0] > 200)
    assert caplog.text.count("such pictures are not turned") == unturned
