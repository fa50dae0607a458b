import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training.drawing.analysis import activations, distances, grad_cams, selectivity
from training.drawing.detection import average_precisions, detections
from training.drawing.figures import drawable, new_figure, save_figure, shown
from training.drawing.runs import confusion_matrix, predictions, reconstructions
from training.drawing.segmentation import iou_chart, segmentations
from training.evaluation.predictions import Prediction

# Names of folders, and so of classes and runs, and what of each is to be read.
NAMES = {"cash $_$": "cash $_$", "caf\udce9": "caf?", "_x": "\u200b_x", r"a\$b$": r"a\$b$", "$": "$", "x$$y": "x$$y"}


def images(channels, count=2, side=8):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels)).astype("uint8")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_shown(channels):
    image = images(channels)[0]
    expected = image[..., :3] if channels > 2 else np.repeat(np.uint8(image.mean(-1, keepdims=True)), 3, axis=-1)
    for given in (image, image.astype("float32")):
        found = shown(given)
        assert (found.dtype, found.shape) == ("uint8", (8, 8, 3))
        np.testing.assert_array_equal(found, expected)


def test_shown_stays_within_the_values_of_a_picture():
    np.testing.assert_array_equal(shown(np.array([[[-3.0, 300.0, 7.9]]])), [[[0, 255, 7]]])


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved from now on."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (figures.append(self), save(self, *args, **kw)))
    return figures


@pytest.mark.parametrize("channels", [2, 4])
def test_pictures_of_any_number_of_channels(tmp_path, drawn, channels):
    batch = images(channels)
    hidden = np.tile([[0, 1], [1, 0]], (2, 1, 1))
    reconstructions(tmp_path / "a.png", batch, hidden, batch.astype("float32"))
    predictions(tmp_path / "b.png", {"right": [Prediction(image, "x", "x", 0.5) for image in batch]})
    activations(tmp_path / "c.png", batch[0], {"m": {"block": np.ones((2, 2, 4))}})
    grad_cams(tmp_path / "d.png", batch, {"m": np.ones((2, 2, 2))}, {"m": ["x", "y"]})
    for figure in drawn:
        np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), shown(batch[0]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png", "d.png"]


def test_a_figure_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_figure(new_figure(2, 1), path)
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", (240, 120))
    before = path.read_bytes()

    def cut_off(self, path, **_):
        path.write_bytes(before[:50])
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", cut_off)
    with pytest.raises(OSError, match="No space left"):
        save_figure(new_figure(2, 1), path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_drawn_as_they_are(name):
    figure = new_figure(2, 2)
    axes = figure.subplots()
    axes.plot([0, 1], label=drawable(name))
    svg = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        axes.legend()
        figure.savefig(svg, format="svg")
    assert f">{NAMES[name]}</text>" in svg.getvalue()


def test_pictures_with_names_of_any_kind(tmp_path, drawn):
    """Each of a user's names is drawn so that it ends no run."""
    names, count = [*NAMES], len(NAMES)
    batch, numbers = images(3), np.arange(count)
    labels, values = np.resize(numbers, (2, 8, 8)), dict.fromkeys(names, 0.5)
    boxes = {"boxes": np.resize([1, 1, 5, 5], (2, count, 4)), "classes": np.tile(numbers, (2, 1))}
    found = {**boxes, "scores": np.ones((2, count)), "count": np.array([count, count])}
    by_block, of_each = {"stages_0_0": np.ones((2, 2, 4))}, dict.fromkeys
    path = tmp_path / "a.png"
    confusion_matrix(path, np.eye(count), names, "all")
    predictions(path, {"wrong": [Prediction(batch[0], name, name[::-1], 0.5) for name in names]})
    segmentations(path, batch, labels, labels, names)
    iou_chart(path, values, 0.5)
    detections(path, batch, boxes, found, names)
    average_precisions(path, values, "all")
    distances(path, of_each(names, {"stages_0_0": 0.5}))
    selectivity(path, of_each(names, {"stages_0_0": np.full(4, 0.5)}))
    activations(path, batch[0], of_each(names, by_block))
    grad_cams(path, batch, of_each(names, np.ones((2, 2, 2))), of_each(names, names[:2]))
    assert len(drawn) == 10
    for figure in drawn:
        for legend in (axes.get_legend() for axes in figure.axes if axes.get_legend()):
            assert [text.get_text() for text in legend.get_texts()] == [*map(drawable, names)]
    told = [text.get_text() for text in drawn[0].axes[0].get_xticklabels()]
    assert told == [*map(drawable, names)]
