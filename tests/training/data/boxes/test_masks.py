import numpy as np
import pytest

from training.data.boxes import masks

HEIGHT, WIDTH = 13, 17


@pytest.fixture(scope="module")
def planes():
    """Masks of all densities, from empty to full."""
    draws = np.random.default_rng(0).uniform(size=(9, HEIGHT, WIDTH))
    planes = (draws < np.linspace(0, 1, 9)[:, None, None]).astype("uint8")
    assert not planes[0].any()
    assert planes[-1].all()
    return planes


class TestRunLengths:
    def test_and_back(self, planes):
        counts = masks.encode(planes)
        assert {type(one) for one in counts} == {bytes}
        np.testing.assert_array_equal(masks.decode(counts, HEIGHT, WIDTH), planes)
        assert masks.decode([], 3, 4).shape == (0, 3, 4)

    def test_runs(self, planes):
        """Column by column, beginning with what is outside."""
        for plane, counts in zip(planes, masks.encode(planes)):
            pixels = plane.T.ravel()
            ends = [*np.flatnonzero(np.diff(pixels)) + 1, pixels.size]
            runs = [0] * int(pixels[0]) + np.diff([0, *ends]).tolist()
            assert masks.runs_of(counts) == runs
            assert masks.from_runs(runs, HEIGHT, WIDTH) == counts

    def test_large_numbers(self):
        runs = [5_000_000, 1, 3, 4_000_000, 999_996]
        assert masks.runs_of(masks.from_runs(runs, 10_000, 1000)) == runs

    @pytest.mark.parametrize("runs", [[], [220], [222], [100, -20, 141]])
    def test_runs_that_do_not_add_up(self, runs):
        with pytest.raises(ValueError, match=rf"13 x 17 pixels, they have {sum(runs)}"):
            masks.from_runs(runs, HEIGHT, WIDTH)

    @pytest.mark.parametrize(
        ("counts", "reason"), [(b"0/1", "characters"), (b"01p", "characters"), (b"1P", "in the middle")]
    )
    def test_no_run_lengths(self, counts, reason):
        with pytest.raises(ValueError, match=reason):
            masks.runs_of(counts)

    def test_a_number_without_end(self):
        """It is refused at once: to add up its megabytes would take minutes, and the sum could not be printed."""
        with pytest.raises(ValueError, match="larger than any picture"):
            masks.runs_of(b"o" * 3_000_000)

    def test_outlines_and_pictures_that_would_take_all_memory(self):
        zigzag = [0, 0, 4000, 3000] * 2000
        with pytest.raises(ValueError, match="outline of a mask must be at most 4194304 pixels long, it is 15996000"):
            masks.from_polygons([zigzag], 3000, 4000)
        for encoded, what in ((masks.from_polygons, [[0, 0, 9, 0, 9, 9]]), (masks.from_runs, [2**32])):
            with pytest.raises(ValueError, match="at most 4294967295 pixels, it has 65536 x 65536"):
                encoded(what, 2**16, 2**16)

    def test_polygons(self):
        """Several are one mask."""
        squares = [[1, 2, 5, 2, 5, 6, 1, 6], [4, 4, 8, 4, 8, 9, 4, 9]]
        expected = np.zeros((HEIGHT, WIDTH))
        expected[2:6, 1:5] = expected[4:9, 4:8] = 1
        np.testing.assert_array_equal(
            masks.decode([masks.from_polygons(squares, HEIGHT, WIDTH)], HEIGHT, WIDTH)[0], expected
        )


def test_boxes_and_areas(planes):
    counts = masks.encode(planes)
    boxes = masks.boxes_of(counts, HEIGHT, WIDTH)
    np.testing.assert_array_equal(masks.boxes_around(planes), boxes)
    np.testing.assert_array_equal(masks.areas_of(counts, HEIGHT, WIDTH), planes.sum(axis=(1, 2)))
    for plane, box in zip(planes[1:], boxes[1:]):
        rows, columns = np.nonzero(plane)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert not boxes[0].any()
    assert masks.boxes_around(planes[:0]).shape == masks.boxes_of([], 3, 4).shape == (0, 4)


def test_sample(planes):
    """Any rows and columns, 0 outside of the picture."""
    rows, columns = np.array([-1, 0, 5, 5, 12]), np.array([16, 3, -1, 0])
    found = masks.sample(masks.encode(planes), HEIGHT, WIDTH, rows, columns)
    expected = np.zeros((9, 5, 4), "uint8")
    for n, plane in enumerate(planes):
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                expected[n, y, x] = plane[row, column] if min(row, column) >= 0 else 0
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == "uint8"
