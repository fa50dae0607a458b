import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.training.analysis.small import images
from training.drawing.analysis import activations, distances, mosaic, selectivity


def test_mosaic():
    channels = np.arange(2 * 3 * 5, dtype=float).reshape(2, 3, 5)
    channels[..., 1] = 7
    found = mosaic(channels, 4)
    assert found.shape == (2 * 3 - 1, 2 * 4 - 1)
    np.testing.assert_allclose(found[:2, :3], channels[..., 0] / 25)
    np.testing.assert_array_equal(found[:2, 4:], 0)  # channel 1, which is all alike
    assert np.isnan(found[2]).all()


@pytest.fixture
def figures(monkeypatch):
    """Those that are saved from now on; no files come of them."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (saved.append(self), path.touch()))
    return saved


class TestModelsOfTwoDepths:
    """Blocks are in the order of their numbers, and curves at their places."""

    SHALLOW = ("stages_0_0", "stages_1_0", "stages_2_0", "stages_3_0")
    DEEP = (*(f"stages_0_{n}" for n in range(11)), "stages_1_0", "stages_1_1", "stages_2_0", "stages_3_0")

    def of_each(self, value):
        return {"shallow": dict.fromkeys(self.SHALLOW, value), "deep": dict.fromkeys(self.DEEP, value)}

    def test_distances(self, figures, tmp_path):
        distances(tmp_path / "a.png", self.of_each(0.5))
        (axes,) = figures[0].axes
        assert [tick.get_text() for tick in axes.get_xticklabels()] == [*self.DEEP]
        assert axes.get_xticks().tolist() == [*range(15)]
        assert [[*line.get_xdata()] for line in axes.lines] == [[0, 11, 13, 14], [*range(15)]]

    def test_selectivity(self, figures, tmp_path):
        selectivity(tmp_path / "a.png", self.of_each(np.full(4, 0.5)))
        panels = figures[0].axes[: len(self.DEEP)]
        assert [axes.get_title() for axes in panels] == [*self.DEEP]
        assert [len(axes.patches) == 2 for axes in panels] == [block in self.SHALLOW for block in self.DEEP]

    def test_activations(self, figures, tmp_path):
        activations(tmp_path / "a.png", images()[0], self.of_each(np.ones((2, 2, 4))))
        assert [axes.get_title() for axes in figures[0].axes[:16]] == ["shallow", *self.DEEP]
