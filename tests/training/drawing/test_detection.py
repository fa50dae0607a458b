import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from tests.training.data.boxes.small import NAMES, objects_of, picture
from training.drawing.detection import annotations, average_precisions, detections


def drawn(monkeypatch):
    """The figures that are saved from now on."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (figures.append(self), save(self, *args, **kw)))
    return figures


def size_of(path):
    with Image.open(path) as image:
        return image.size


def test_detections(tmp_path, monkeypatch):
    """What is annotated to the left; to the right what is found, as far as it counts and is sure enough."""
    figures = drawn(monkeypatch)
    images = np.stack([picture(objects_of(n)) for n in (1, 3)]).astype("float32")
    boxes = np.stack([[box for _, box in objects_of(n)] + [[-1] * 4] for n in (1, 3)]).astype("float32")
    classes = np.array([[1, 2, -1], [0, 1, -1]])
    scores = np.array([[0.9, 0.2, -1], [0.8, 0.7, 0.6]])
    found = {"boxes": boxes, "classes": classes, "scores": scores, "count": np.array([2, 1])}
    path = tmp_path / "a.png"
    detections(path, images, {"boxes": boxes, "classes": classes}, found, NAMES, threshold=0.5)
    axes = figures[0].axes
    labels = [[text.get_text() for text in each.texts] for each in axes]
    assert labels == [["green", "red"], ["green 0.90"], ["blue", "green"], ["blue 0.80"]]
    patches = [[patch.get_bbox().extents.tolist() for patch in each.patches] for each in axes]
    assert patches == [boxes[0, :2].tolist(), boxes[0, :1].tolist(), boxes[1, :2].tolist(), boxes[1, :1].tolist()]
    assert size_of(path) == (960, 960)


def test_masks(tmp_path, monkeypatch):
    """Translucent, in the colours of their classes; the surest on top."""
    figures = drawn(monkeypatch)
    boxes, classes = np.array([[[0.0, 0, 32, 32], [16, 0, 48, 32]]]), np.array([[0, 1]])
    masks = np.zeros((1, 2, 64, 64), "uint8")
    masks[0, 0, :32, :32] = 1
    found = {"boxes": boxes, "classes": classes, "scores": np.array([[0.9, 0.8]]), "count": np.array([2])}
    found["masks"] = np.ones((1, 2, 28, 28), "float32")
    truths = {"boxes": boxes, "classes": classes, "masks": masks}
    detections(tmp_path / "a.png", np.zeros((1, 64, 64, 3)), truths, found, NAMES)
    left, right = (axes.images[1].get_array() for axes in figures[0].axes)
    first, second = (np.array(to_rgba(colour, 0.45)) for colour in ("C0", "C1"))
    np.testing.assert_allclose(left[masks[0, 0] == 1], np.tile(first, (32 * 32, 1)))
    assert not left[masks[0, 0] == 0].any()
    np.testing.assert_allclose(right[16, [8, 24, 40]], [first, first, second])
    assert not right[40:].any()


def test_annotations(tmp_path, monkeypatch):
    """Each image, and below it with its objects; one has masks, the other one does not."""
    figures = drawn(monkeypatch)
    images = [picture(objects_of(n)) for n in (1, 3)]
    objects = [
        {"boxes": np.float32([box for _, box in objects_of(n)]), "classes": np.array([0, 1]), "scores": None}
        for n in (1, 3)
    ]
    masks = np.zeros((2, *images[0].shape[:2]), bool)
    masks[0, 4, 5] = True
    objects[0]["masks"] = masks
    annotations(tmp_path / "a.png", images, objects, NAMES)
    axes = figures[0].axes
    for each, image in zip(axes, images * 2):
        np.testing.assert_array_equal(each.images[0].get_array(), image)
    assert [len(each.images) for each in axes] == [1, 1, 2, 1]
    np.testing.assert_allclose(axes[2].images[1].get_array()[4, 5], to_rgba("C0", 0.45))
    assert [[text.get_text() for text in each.texts] for each in axes] == [[], [], ["blue", "green"], ["blue", "green"]]
    assert size_of(tmp_path / "a.png") == (600, 600)


def test_nothing_is_sure_enough_for_a_mask(tmp_path):
    there = {"boxes": np.full((1, 1, 4), -1.0), "classes": np.array([[-1]])}
    found = {**there, "scores": np.array([[0.1]]), "count": np.array([1]), "masks": np.ones((1, 1, 28, 28))}
    truths = {**there, "masks": np.zeros((1, 1, 64, 64))}
    detections(tmp_path / "a.png", np.zeros((1, 64, 64, 3)), truths, found, NAMES)
    assert size_of(tmp_path / "a.png") == (960, 480)


def test_names_of_boxes_are_within_the_picture(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    boxes, classes = np.array([[[4.0, 0, 20, 20], [30, 40, 50, 60]]]), np.array([[0, 1]])
    found = {"boxes": boxes, "classes": classes, "scores": np.array([[0.9, 0.8]]), "count": np.array([0])}
    detections(tmp_path / "a.png", np.zeros((1, 64, 64, 3)), {"boxes": boxes, "classes": classes}, found, NAMES)
    axes = figures[0].axes[0]
    frame, *names = (part.get_window_extent() for part in (axes, *axes.texts))
    assert all(name.y1 <= frame.y1 for name in names)
    assert [text.get_verticalalignment() for text in axes.texts] == ["top", "bottom"]


def test_average_precisions(tmp_path, monkeypatch):
    """The best above; classes that are in no picture have no bar."""
    figures = drawn(monkeypatch)
    average_precisions(tmp_path / "a.png", {"a": 0.25, "b": None, "c": 0.75}, "all")
    (axes,) = figures[0].axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["c", "a"]
    assert [bar.get_width() for bar in axes.patches] == [0.75, 0.25]
    assert [text.get_text() for text in axes.texts] == ["75.0%", "25.0%"]
    assert axes.yaxis_inverted()
    many = {f"{n:03}": n / 100 for n in range(100)}
    average_precisions(tmp_path / "b.png", many, "all")
    names = [tick.get_text() for tick in figures[1].axes[0].get_yticklabels()]
    assert names == [f"{n:03}" for n in [*range(99, 69, -1), *range(29, -1, -1)]]
    average_precisions(tmp_path / "c.png", {"a": None}, "none")
    assert size_of(tmp_path / "c.png")[0] == 720


def test_average_precisions_of_masks(tmp_path, monkeypatch):
    """Each below that of the boxes, with a legend."""
    figures = drawn(monkeypatch)
    classes, masks = {"a": 0.25, "b": None, "c": 0.75}, {"a": 0.5, "b": None, "c": 0.125}
    average_precisions(tmp_path / "a.png", classes, "all", masks)
    (axes,) = figures[0].axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["c", "a"]
    assert [[bar.get_width() for bar in bars] for bars in axes.containers] == [[0.75, 0.25], [0.125, 0.5]]
    of_boxes, of_masks = ([bar.get_y() for bar in bars] for bars in axes.containers)
    assert of_boxes[0] < of_masks[0] < of_boxes[1] < of_masks[1]  # the axis is inverted
    assert [text.get_text() for text in axes.get_legend().texts] == ["boxes", "masks"]
    average_precisions(tmp_path / "b.png", {"a": None}, "none", {"a": None})
