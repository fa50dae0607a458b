import io

import numpy as np
import pytest
from PIL import Image

from tests.training.data.boxes.small import recipe
from training.data.boxes import digits, masks
from training.data.boxes.digits import DigitPages, drawn
from training.data.boxes.sources import open_boxes
from training.data.images import arrays

pytestmark = pytest.mark.usefixtures("quick_pictures")

NAMES = tuple("0123456789")


@pytest.fixture(scope="module")
def source():
    return DigitPages((6, 3))


def told(**fields):
    return recipe(image_size=256, max_boxes=20, max_pixels=2**20, **fields)


def pages(split, count):
    return [*drawn(split, range(count))]


class TestDigitPages:
    def test_training_and_validation_show_other_digits(self, monkeypatch):
        """Each page gets the scans of one side of the split that fine-tuning on digits has."""
        given, draw = [], digits.draw_page
        monkeypatch.setattr(digits, "draw_page", lambda *arguments: (given.append(arguments), draw(*arguments))[1])
        DigitPages((2, 1))
        scans = arrays.digits(8)
        for (images, labels, key), split, place in zip(given, (scans.train, scans.train, scans.test), (0, 0, 1)):
            np.testing.assert_array_equal(images, split.images[..., 0])
            np.testing.assert_array_equal(labels, split.labels)
            assert key[1] == place
        assert len({key for *_, key in given}) == 3

    def test_facts(self, source):
        assert (source.size, source.validation_size, source.class_names, source.has_masks) == (6, 3, NAMES, True)
        source.check(told(masks=True))
        source.look()

    @pytest.mark.slow
    def test_training(self, source):
        expected, seen = pages("train", 6), []
        (images, labels), *_ = source.training(told()).take(1).as_numpy_iterator()
        for image, boxes, classes in zip(images, labels["boxes"], labels["classes"]):
            (number,) = (n for n, page in enumerate(expected) if np.abs(page.pixels - image).max() < 0.01)
            seen.append(number)
            count = len(expected[number].classes)
            np.testing.assert_allclose(boxes[:count], expected[number].boxes, atol=1e-4)
            np.testing.assert_array_equal(classes[:count], expected[number].classes)
            assert (classes[count:] == -1).all()
        assert len({*seen}) == 4

    def test_annotations(self, monkeypatch):
        """The masks of a page are those of its strokes; its area is the number of their pixels."""
        given = {}
        monkeypatch.setattr(
            digits.FileBoxes, "__init__", lambda self, annotations, **options: given.update(annotations._asdict())
        )
        source = DigitPages((2, 1))
        contents = source._pictures.numpy()
        for example, page, encoded in zip(
            given["train"] + given["validation"], pages("train", 2) + pages("validation", 1), contents
        ):
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), page.pixels)
            np.testing.assert_array_equal(masks.decode(example.masks, 256, 256), page.masks)
            np.testing.assert_array_equal(example.boxes, page.boxes)
            np.testing.assert_array_equal(example.classes, page.classes)
            assert example.areas.tolist() == page.masks.sum(axis=(1, 2)).tolist()
            assert not example.crowd.any()
        assert [example.path for example in given["train"]] == ["digits/train/0", "digits/train/1"]

    @pytest.mark.slow
    def test_examples(self, source):
        source.look()
        images, labels = source.examples(told(), 3)
        for page in pages("validation", 3):
            (place,) = (n for n, image in enumerate(images) if np.array_equal(page.pixels, image))
            np.testing.assert_array_equal(labels["boxes"][place, : len(page.boxes)], page.boxes)

    def test_open(self, monkeypatch):
        """The seed of a recipe orders pages but does not change them: runs of other seeds are compared on the same."""
        monkeypatch.setattr(DigitPages.__init__, "__defaults__", ((2, 1), 0))
        ones, others = (open_boxes(told(data="digits", seed=seed)) for seed in (0, 1))
        assert isinstance(ones, DigitPages)
        assert (ones.size, ones.validation_size) == (2, 1)
        np.testing.assert_array_equal(ones._pictures.numpy(), others._pictures.numpy())
