import numpy as np
import pytest
from sklearn.datasets import load_digits

from training.data.boxes import pages
from training.data.boxes.pages import PAGE, draw_page


@pytest.fixture(scope="module")
def scans():
    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype("uint8"), digits.target


@pytest.fixture(scope="module")
def drawn(scans):
    return [draw_page(*scans, (0, number)) for number in range(40)]


def overlap(one, other):
    """Intersection over union of two boxes, pixel by pixel."""
    ones, others = np.zeros((2, PAGE, PAGE), bool)
    for page, (left, top, right, bottom) in ((ones, one), (others, other)):
        page[int(top) : int(bottom), int(left) : int(right)] = True
    return (ones & others).sum() / (ones | others).sum()


class TestPages:
    def test_parts(self, drawn):
        for page in drawn:
            count = len(page.classes)
            assert 5 <= count <= 15
            assert (page.pixels.shape, page.pixels.dtype.name) == ((256, 256, 3), "uint8")
            assert (page.masks.shape, page.masks.dtype.name) == ((count, 256, 256), "bool")
            assert (page.boxes.shape, page.boxes.dtype.name) == ((count, 4), "float32")
            assert page.classes.dtype.name == "int32"

    def test_boxes_are_tight_around_masks(self, drawn):
        for page in drawn:
            for mask, box in zip(page.masks, page.boxes):
                rows, columns = np.nonzero(mask)
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]

    def test_a_pixel_belongs_to_the_last_digit_there(self, drawn):
        assert max(page.masks.sum(axis=0).max() for page in drawn) == 1

    def test_overlap(self, drawn):
        """Boxes overlap, sometimes nearly by the largest IoU that is allowed, never by more."""
        greatest = max(
            overlap(page.boxes[i], page.boxes[j]) for page in drawn for i in range(len(page.boxes)) for j in range(i)
        )
        assert 0.2 < greatest <= 0.3

    def test_counts_sides_and_classes_are_uniform(self, monkeypatch, scans):
        """Each number of digits from 5 to 15, and each side from 16 to 48 pixels."""
        sides, resized = [], pages._resized
        monkeypatch.setattr(pages, "_resized", lambda values, side: (sides.append(side), resized(values, side))[1])
        drawn = [draw_page(*scans, (1, number)) for number in range(80)]
        counts = [len(page.classes) for page in drawn]
        assert {*counts} == {*range(5, 16)}
        assert abs(np.mean(counts) - 10) < 4 * np.sqrt((11**2 - 1) / 12 / 80)
        sides = [side for side in sides if side != PAGE]
        assert {*sides} == {*range(16, 49)}
        assert abs(np.mean(sides) - 32) < 4 * np.sqrt((33**2 - 1) / 12 / len(sides))
        counts = np.bincount(np.concatenate([page.classes for page in drawn]))
        # Chi-squared of ten classes: a random draw exceeds this once in ten thousand times.
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 33.7

    def test_digits_are_readable(self, drawn):
        """The stroke differs in brightness from the page around it."""
        brightness = np.array([0.299, 0.587, 0.114])
        for page in drawn:
            grey = page.pixels @ brightness
            ground = np.median(grey)
            for mask in page.masks:
                assert abs(grey[mask].mean() - ground) > 40

    def test_first_page(self, drawn):
        """The same on all machines."""
        page = drawn[0]
        assert page.classes.tolist() == [0, 9, 7, 4, 7, 3, 6, 3, 4, 1, 6, 7, 5, 7, 2]
        assert page.boxes[:2].tolist() == [[153, 22, 163, 38], [26, 120, 50, 161]]
        assert page.masks.sum() == 3001
        assert page.pixels[100, ::100].tolist() == [[82, 91, 11], [64, 67, 5], [79, 95, 14]]

    def test_a_page_is_decided_by_its_key(self, scans):
        one, same, other = (draw_page(*scans, key) for key in ((3, 4), (3, 4), (3, 5)))
        for column, expected in zip(one, same):
            np.testing.assert_array_equal(column, expected)
        assert not np.array_equal(one.pixels, other.pixels)


class TestStroke:
    def test_mask_is_what_exceeds_half_intensity(self, monkeypatch):
        """Of two values, 127 and 128, only the latter is stroke. A plain page shows how much of a colour is there."""
        monkeypatch.setattr(pages, "COUNTS", (1, 1))
        monkeypatch.setattr(pages, "SIDES", (16, 16))
        scan = np.full((1, 16, 16), 127, "uint8")
        scan[0, 3:9, 5:7] = 128
        page = draw_page(scan, np.array([7]), (0,))
        assert page.classes.tolist() == [7]
        (mask,) = page.masks
        left, top, right, bottom = page.boxes[0].astype(int)
        assert (right - left, bottom - top) == (2, 6)
        assert mask.sum() == 12
        assert mask[top:bottom, left:right].all()

    def test_colour_is_blended_by_intensity(self, monkeypatch):
        monkeypatch.setattr(pages, "COUNTS", (1, 1))
        monkeypatch.setattr(pages, "SIDES", (16, 16))
        monkeypatch.setattr(pages, "TEXTURE", ())
        scan = np.zeros((1, 16, 16), "uint8")
        scan[0, 4:8], scan[0, 8:12] = 51, 255
        page = draw_page(scan, np.array([7]), (0,))
        left, top, right, bottom = page.boxes[0].astype(int)
        assert (right - left, bottom - top) == (16, 4)
        paper, colour = page.pixels[0, 0].astype(float), page.pixels[top, left].astype(float)
        expected = np.broadcast_to(paper, (256, 256, 3)).copy()
        expected[top:bottom, left:right] = colour
        expected[top - 4 : top, left:right] = np.rint(0.8 * paper + 0.2 * colour)
        np.testing.assert_allclose(page.pixels, expected, atol=1)

    def test_covered_part_is_cut_off(self, monkeypatch):
        """Two blocks of 16 pixels: the second one is whole, the first loses the columns that both share."""
        monkeypatch.setattr(pages, "COUNTS", (2, 2))
        monkeypatch.setattr(pages, "SIDES", (16, 16))
        places = iter([(50, 60), (50, 64), (50, 68)])
        monkeypatch.setattr(pages, "_place", lambda side, rng: tuple(slice(at, at + side) for at in next(places)))
        page = draw_page(np.full((1, 16, 16), 255, "uint8"), np.array([1]), (0,))
        # At (50, 64) three quarters of the first would be covered, so this place is drawn again.
        np.testing.assert_array_equal(page.boxes, [[60, 50, 68, 66], [68, 50, 84, 66]])
        assert page.masks.sum(axis=(1, 2)).tolist() == [8 * 16, 16 * 16]
