import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training import pictures
from training.analysis import pictures as analysis_pictures
from training.figures import new_figure, save_figure, shown
from training.predictions import Prediction


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


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_pictures_of_any_number_of_channels(tmp_path, monkeypatch, channels):
    drawn, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (drawn.append(self), save(self, *args, **kw)))
    batch = images(channels)
    hidden = np.tile([[0, 1], [1, 0]], (2, 1, 1))
    pictures.reconstructions(tmp_path / "a.png", batch, hidden, batch.astype("float32"))
    pictures.predictions(tmp_path / "b.png", {"right": [Prediction(image, "x", "x", 0.5) for image in batch]})
    analysis_pictures.activations(tmp_path / "c.png", batch[0], {"m": {"block": np.ones((2, 2, 4))}})
    analysis_pictures.grad_cams(tmp_path / "d.png", batch, {"m": np.ones((2, 2, 2))}, {"m": ["x", "y"]})
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
