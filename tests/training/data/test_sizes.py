import pytest
from PIL import Image

from keras_cnv2.images.pictures import Reading
from training.data.sizes import Size, sizes_of

STORED, UPRIGHT = ((40, 30), (40, 30)), ((40, 30), (30, 40))


def save(path, orientation=1, **options):
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.new("RGB", (40, 30)).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_sides(tmp_path, suffix):
    """Width before height; turned upright unless orientations are ignored."""
    files = [save(tmp_path / f"{number}.{suffix}", number) for number in (1, 3, 6)]
    assert sizes_of(files, Reading()) == [Size(*STORED), Size(*STORED), Size(*UPRIGHT)]
    assert sizes_of(files, Reading(exif_orientation=False)) == [Size(*STORED)] * 3


def test_no_pictures(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.jpg").write_bytes(save(tmp_path / "whole.jpg").read_bytes()[:20])
    (tmp_path / "empty.png").touch()
    names = ("text.png", "cut.jpg", "empty.png", "missing.png", "")
    assert sizes_of([tmp_path / name for name in names], Reading()) == [None] * 5


def test_size_after_much_metadata(tmp_path):
    """A thumbnail or colour profile may be larger than what is read first."""
    file = save(tmp_path / "a.jpg", 6, icc_profile=bytes(200_000))
    assert sizes_of([file], Reading()) == [Size(*UPRIGHT)]
