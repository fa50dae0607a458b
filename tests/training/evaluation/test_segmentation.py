import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from tests.training.data.scenes.small import recipe, scene, write_folder
from training.data.scenes.folders import SceneFolder
from training.errors import RecipeError
from training.evaluation import segmentation as evaluation
from training.evaluation import tables
from training.evaluation.segmentation import evaluate, examples

pytestmark = pytest.mark.usefixtures("quick_pictures")


def brute_force(pairs, classes, ignored=255):
    """Scores from pairs of labels and predictions, a class and a pixel after the other."""
    right, union, labelled = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for labels, predictions in pairs:
        for label, prediction in zip(labels.ravel(), predictions.ravel()):
            if label != ignored:
                for number in {label, prediction}:
                    union[number] += 1
                labelled[label] += 1
                right[label] += label == prediction
    iou = [r / u if u else None for r, u in zip(right, union)]
    return {
        "mean_iou": np.mean([value for value in iou if value is not None]),
        "pixel_accuracy": right.sum() / labelled.sum(),
        "mean_accuracy": np.mean([r / n for r, n in zip(right, labelled) if n]),
        "iou": iou,
    }


def by_colour(levels=(40, 100, 160)):
    """A model that takes pixels of red near a level for its class, one too many."""
    images = keras.Input((None, None, 3))
    red = keras.ops.expand_dims(images[..., 0], -1)
    distance = keras.ops.abs(red - np.float32([*levels, 1000]))
    return keras.Model(images, -distance / 10)


@pytest.fixture
def folder(tmp_path):
    """Validation on three pictures of different sizes; no label is of the fourth class."""
    return write_folder(tmp_path)


def classes_of(pixels, levels=(40, 100, 160)):
    return np.abs(pixels[..., :1] - np.float32(levels)).argmin(-1)


@pytest.fixture(scope="module")
def expected():
    """Of the folder's validation."""
    scenes = [scene(10 + number, width=40 + 4 * number) for number in range(3)]
    return brute_force([(labels, classes_of(pixels)) for pixels, labels in scenes], 4)


def assert_scores(figures, expected):
    assert 0.2 < expected["mean_iou"] < 0.95
    assert [*figures["iou"]] == ["a", "b", "c", "d"]
    assert figures["images"] == 3
    *known, unseen = figures["iou"].values()
    assert unseen is expected["iou"][3] is None
    np.testing.assert_allclose(known, expected["iou"][:3], rtol=1e-12)
    for name in ("mean_iou", "pixel_accuracy", "mean_accuracy"):
        np.testing.assert_allclose(figures[name], expected[name], rtol=1e-12)


class TestScores:
    def test_against_every_pixel(self, folder, expected):
        figures = evaluate(by_colour(), SceneFolder(folder, ("a", "b", "c", "d")), recipe())
        assert_scores(figures, expected)
        assert figures["images_per_second"] > 0

    def test_parts_of_workers_are_put_together(self, folder, expected):
        class Devices:
            workers, is_chief = 2, False
            said = []

            def __init__(self, worker):
                self.worker = worker

            def gather(self, content):
                self.said.append(content)
                return self.said

        source = SceneFolder(folder, ("a", "b", "c", "d"))
        first, both = (evaluate(by_colour(), source, recipe(), Devices(worker)) for worker in range(2))
        assert first["images"] == 2
        assert_scores(both, expected)

    def test_no_pictures(self, folder):
        shutil.rmtree(folder / "val")
        with pytest.raises(RecipeError, match="must have pictures to evaluate on"):
            evaluate(by_colour(), SceneFolder(folder, 3, validation_share=0.0), recipe())


class TestViews:
    @pytest.mark.parametrize("fields", [{"window": 32, "stride": 16}, {"short_side": 60, "multi_scale": True}])
    def test_large_areas_look_alike_in_all_ways(self, folder, fields):
        """Three areas of plain colour: but for the seams, and where windows or mirrors were mixed up."""
        labels = np.zeros((40, 60), "uint8")
        labels[:, 22:] = 2
        labels[30:, 22:] = 1
        for number in range(10, 13):
            Image.fromarray(labels).save(folder / "valannot" / f"{number}.png")
            pixels = np.float32([40, 100, 160])[labels][..., None].repeat(3, -1)
            Image.fromarray(np.uint8(pixels)).save(folder / "val" / f"{number}.png")
        figures = evaluate(by_colour(), SceneFolder(folder, 3), recipe(**fields))
        assert figures["pixel_accuracy_multi_scale" if "multi_scale" in fields else "pixel_accuracy"] > 0.94
        assert figures["pixel_accuracy"] > 0.94
        assert ("mean_iou_multi_scale" in figures) == ("multi_scale" in fields)

    @pytest.mark.parametrize(
        ("fields", "sizes"),
        [
            ({}, [(30, 40)]),
            ({"short_side": 60, "window": 32, "stride": 20}, [(60, 80)]),
            (
                {"short_side": 60, "multi_scale": True},
                [(30, 40), (45, 60), (60, 80), (75, 100), (90, 120), (105, 140)],
            ),
        ],
    )
    def test_average_over_what_the_model_sees(self, monkeypatch, fields, sizes):
        made, seen = [], []

        class Segmenter:
            def __init__(self, *arguments, **options):
                made.append((arguments, options))

            def probabilities(self, images, size):
                seen.append(tuple(images.shape[1:3]))
                second = 0.45 if images.shape[1] > 60 else 0.52
                return np.broadcast_to(np.float32([1 - second, second]), (1, *size, 2))

        monkeypatch.setattr(evaluation, "Segmenter", Segmenter)
        settings = recipe(**fields)
        predict = evaluation.predictor("model", settings, evaluation.SCALES if settings.multi_scale else (1.0,))
        classes = predict(scene(0)[0], (7, 9))
        assert made == [(("model", settings.window, settings.stride), {"flip": settings.multi_scale})]
        assert seen == sizes
        # The second class has 0.52 in each view, but 0.45 in the three of six that are larger than 60.
        np.testing.assert_array_equal(classes, np.full((7, 9), 0 if settings.multi_scale else 1))


def test_examples(folder):
    found = [*zip(*examples(by_colour(), SceneFolder(folder, 3), recipe(), 2))]
    numbers = [10 + (pixels.shape[1] - 40) // 4 for pixels, *_ in found]
    assert len({*numbers}) == 2
    for number, (image, labels, predictions) in zip(numbers, found):
        pixels, expected = scene(number, width=image.shape[1])
        np.testing.assert_array_equal(image, pixels)
        np.testing.assert_array_equal(labels, np.where(expected == 255, -1, np.int32(expected)))
        np.testing.assert_array_equal(predictions, classes_of(pixels))


def test_ignored_labels_of_examples_are_no_class(folder):
    """Nor are they one whose number they have."""
    for file in (folder / "valannot").iterdir():
        labels = np.asarray(Image.open(file))
        Image.fromarray(np.where(labels == 255, 0, labels)).save(file)
    _, labels, _ = examples(by_colour(), SceneFolder(folder, 3, ignore_label=0), recipe(), 3)
    assert {*np.unique(np.concatenate([label.ravel() for label in labels]))} == {-1, 1, 2}


def test_nothing_but_ignored_pixels(folder):
    for file in (folder / "valannot").iterdir():
        Image.fromarray(np.full(np.asarray(Image.open(file)).shape, 255, "uint8")).save(file)
    figures = evaluate(by_colour(), SceneFolder(folder, 3), recipe())
    assert figures["mean_iou"] is figures["pixel_accuracy"] is None
    assert "mean IoU no pixels, pixel accuracy no pixels" in tables.segmentation(figures)
