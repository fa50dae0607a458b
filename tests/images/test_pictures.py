"""Pictures become the images that PIL makes of them."""

import io
import os
import re
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_cnv2.images.decode import decode
from keras_cnv2.images.pictures import RESIZES, Reading, load_image, to_square
from tests import golden

pytestmark = pytest.mark.lowest

ROOT = Path(__file__).parents[2]
# Photographs, which are not part of the project.
SHARED = ROOT.parent / "shared"

PICTURES = golden.load("pictures")
FILES = [key.removesuffix("/file") for key in PICTURES if key.endswith("/file")]
NAMES = [name for name in FILES if not name.startswith("refused/")]
REFUSED = [name for name in FILES if name.startswith("refused/")]


def contents(name):
    return PICTURES[f"{name}/file"].tobytes()


def reference(key):
    """The file holds differences between pixels, see make_pictures.py."""
    return PICTURES[key].cumsum(0, dtype="uint8").cumsum(1, dtype="uint8")


def assert_like_pil(image, expected, mean):
    assert image.shape == expected.shape
    difference = np.abs(image - expected)
    assert difference.mean() <= mean
    assert difference.max() <= 2


class TestLikePIL:
    @pytest.mark.parametrize("key", [key for key in PICTURES if key.endswith("/rgb")])
    def test_pixels(self, key):
        np.testing.assert_array_equal(decode(contents(key.removesuffix("/rgb"))), reference(key))

    @pytest.mark.parametrize("key", [key for key in PICTURES if re.search(r"/(crop|squash)\d+$", key)])
    def test_image(self, key):
        name, resize, size = re.fullmatch(r"(.*)/([a-z]+)(\d+)", key).groups()
        assert_like_pil(load_image(contents(name), int(size), resize), reference(key), mean=0.02)


@pytest.mark.parametrize("values", [(0, 1), (2, 3), (254, 255)])
def test_halves_are_rounded_up_as_in_pil(values):
    from PIL import Image

    pixels = np.repeat(np.uint8([values])[..., None], 3, axis=2)
    expected = np.asarray(Image.fromarray(pixels).resize((1, 1), Image.Resampling.BICUBIC))
    assert expected.max() == values[1]
    np.testing.assert_array_equal(to_square(pixels, 1, "squash"), expected)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the photographs in the folder `shared` beside the checkout")
def test_photographs():
    expected = np.load(SHARED / "golden" / "preprocess.npz")
    means = []
    with tarfile.open(SHARED / "data" / "imagenet_sample.tar") as photographs:
        for number, name in enumerate(expected["names"]):
            photograph = photographs.extractfile(str(name)).read()
            for size, resize in ((224, "crop"), (384, "squash")):
                image = load_image(photograph, size, resize)
                assert_like_pil(image, expected[f"{resize}{size}/{number}"], mean=0.5)
                means.append(np.abs(image - expected[f"{resize}{size}/{number}"]).mean())
    # 0.5 is what the project demands, this is what it has.
    assert len(means) == 12
    assert max(means) <= 0.01


def test_a_crop_of_another_fraction():
    """As by PIL: the shorter side to `int(size / fraction)`, then the centre."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), "uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    expected = Image.fromarray(pixels).resize((75, 50), Image.Resampling.BICUBIC).crop((15, 2, 60, 47))
    image = load_image(file.getvalue(), 45, 0.9)
    assert np.abs(image - np.asarray(expected, "float32")).max() <= 1
    for wrong in (0, 1.1, "0.9", True, float("nan")):
        with pytest.raises(ValueError, match="resize must be None, one of"):
            load_image(file.getvalue(), 45, wrong)


@pytest.mark.parametrize("resize", RESIZES)
def test_in_a_graph(resize):
    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def serve(encoded):
        return to_square(decode(encoded), 48, resize)

    for name in NAMES:
        np.testing.assert_array_equal(serve(contents(name)), load_image(contents(name), 48, resize), err_msg=name)


def test_paths_and_bytes(tmp_path):
    path = tmp_path / "a picture.of.any.name"
    path.write_bytes(contents("jpeg_420"))
    expected = load_image(contents("jpeg_420"))
    for received in (path, str(path), bytearray(contents("jpeg_420"))):
        np.testing.assert_array_equal(load_image(received), expected)


class TestOutput:
    @pytest.mark.parametrize("resize", RESIZES)
    @pytest.mark.parametrize("size", [1, 47, 224])
    def test_whole_numbers(self, size, resize):
        # Black beside white: bicubic interpolation leaves 0..255 on both sides.
        image = load_image(contents("png_1bit"), size, resize)
        assert isinstance(image, np.ndarray)
        assert image.dtype == "float32"
        assert image.shape == (size, size, 3)
        assert image.min() >= 0
        assert image.max() <= 255
        np.testing.assert_array_equal(image, np.round(image))

    @pytest.mark.parametrize(("size", "resize", "other"), [(383, "crop", "squash"), (384, "squash", "crop")])
    def test_default_resize(self, size, resize, other):
        image = load_image(contents("jpeg_420"), size)
        np.testing.assert_array_equal(image, load_image(contents("jpeg_420"), size, resize))
        assert np.abs(image - load_image(contents("jpeg_420"), size, other)).mean() > 1

    def test_default_size(self):
        expected = load_image(contents("jpeg_420"), 224, "crop")
        np.testing.assert_array_equal(load_image(contents("jpeg_420")), expected)


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1)])
def test_very_long_picture(shape):
    """Whole, at the size that makes its short side long enough, it would take 16 GB."""
    picture = tf.io.encode_png(np.full((*shape, 3), 7, "uint8")).numpy()
    np.testing.assert_array_equal(load_image(picture), np.full((224, 224, 3), 7))


class TestBadInput:
    @pytest.mark.parametrize(
        "bad", [b"", b"BM", b"\xff\xd8\xff", b"RIFF____WEBP", b"RIFF____WEBPVP8X\xff", b"picture" * 9]
    )
    def test_no_picture(self, bad):
        with pytest.raises(ValueError, match=rf"^Not a JPEG.*Received: {len(bad)} bytes$"):
            load_image(bad)

    @pytest.mark.parametrize("part", [0.9, 0.5, 0.1])
    @pytest.mark.parametrize("name", ["jpeg_420", "jpeg_progressive", "png_rgb", "webp_lossy", "bmp_rgb", "gif"])
    def test_truncated(self, name, part):
        bad = contents(name)[: int(part * len(contents(name)))]
        with pytest.raises(ValueError, match=rf"or a damaged one, or too large. Received: {len(bad)} bytes$"):
            load_image(bad)

    @pytest.mark.parametrize("name", REFUSED)
    def test_refused(self, name):
        bad = contents(name)
        match = "BMP files with a palette" if "bmp" in name else "Not a JPEG"
        with pytest.raises(ValueError, match=rf"^{match}.*Received: {len(bad)} bytes$"):
            load_image(bad)

    @pytest.mark.parametrize("bits", [1, 4, 8])
    def test_palette_of_any_number_of_colours(self, bits):
        from PIL import Image

        colours = bytes(number % 251 for number in range(4 * 2**bits))
        start, rows = 54 + len(colours), bytes(4 * -(-8 * bits // 32) * 4)  # of 8 x 4 pixels
        header = struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start)
        header += struct.pack("<IiiHHIIiiII", 40, 8, 4, 1, bits, 0, 0, 0, 0, 2**bits, 0)
        picture = header + colours + rows
        assert Image.open(io.BytesIO(picture)).convert("RGB").size == (8, 4)
        with pytest.raises(ValueError, match="^BMP files with a palette"):
            load_image(picture)

    def test_palette_in_a_graph(self):
        """As in training and in served models: its numbers must not pass for grey levels."""
        with pytest.raises(tf.errors.InvalidArgumentError, match="BMP files with a palette"):
            tf.function(decode)(contents("refused/bmp_palette"))

    def test_animation_larger_than_memory(self):
        # In the header only: 10,000 pixels a side.
        bad = bytearray(contents("refused/webp_animated"))
        bad[24:30] = 2 * (9999).to_bytes(3, "little")
        with pytest.raises(
            ValueError, match=f"at most 50000000 .* Received: {len(bad)} bytes of 10000 x 10000 pixels$"
        ):
            load_image(bad)

    @pytest.mark.parametrize("bad", [b"no picture", contents("refused/bmp_palette")])
    def test_file(self, tmp_path, bad):
        path = tmp_path / "picture.png"
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=re.escape(f"Received: {path}")):
            load_image(path)

    @pytest.mark.parametrize("name", ["none.png", "."])
    def test_no_file(self, tmp_path, name):
        with pytest.raises(OSError, match=re.escape(str(tmp_path / name))):
            load_image(tmp_path / name)

    @pytest.mark.parametrize("source", [None, 5, 10**10, ["a.png"]])
    def test_neither_path_nor_bytes(self, source):
        with pytest.raises(ValueError, match="takes a path or bytes. Received"):
            load_image(source)

    @pytest.mark.parametrize("size", [0, -1, 2.0, True, None, "224"])
    def test_size(self, size):
        with pytest.raises(ValueError, match=f"size must be a positive int. Received: size={size!r}"):
            load_image(contents("png_pixel"), size)

    @pytest.mark.parametrize("resize", ["pad", "Crop", "", 0, 1.5, True])
    def test_resize(self, resize):
        with pytest.raises(ValueError, match=rf"'crop', 'squash'.*Received: resize={resize!r}"):
            load_image(contents("png_pixel"), 8, resize)


def damaged(rng, encoded):
    """Bytes overwritten anywhere or in the header, the end cut off, a piece left out, a piece repeated."""
    encoded, kind = bytearray(encoded), rng.integers(5)
    first, second = rng.integers(len(encoded), size=2)
    if kind < 2:
        for _ in range(rng.integers(1, 6)):
            encoded[rng.integers(len(encoded) if kind else 64)] = rng.integers(256)
    elif kind == 2:
        del encoded[first:]
    elif kind == 3:
        del encoded[first : first + rng.integers(1, 65)]
    else:
        encoded[first:first] = encoded[second : second + rng.integers(1, 65)]
    return bytes(encoded)


def test_damaged_pictures():
    """A decoder that crashes takes this process along: with `-n 0 -s`, the last line printed tells the picture."""
    found = set()
    for seed in range(300):
        name = FILES[seed % len(FILES)]
        bad = damaged(np.random.default_rng(seed), contents(name))
        print(seed, name, flush=True)
        try:
            found.add(load_image(bad, 16).shape)
        except ValueError as error:
            refused = re.search(rf"Received: {len(bad)} bytes( of \d+ x \d+ pixels)?$", str(error))
            found.add("refused" if refused else str(error))
    assert found == {(16, 16, 3), "refused"}


class TestSixteenBits:
    def write(self, path, highest):
        pixels = np.linspace(0, highest, 64 * 64).reshape(64, 64, 1).astype("uint16")
        path.write_bytes(tf.io.encode_png(pixels).numpy())
        return path

    def test_a_small_part_of_the_range(self, tmp_path):
        """As microscopes and X-rays have it: of 12 bits, 16 grey levels are left."""
        with pytest.warns(UserWarning, match="xray.png is a PNG of 16 bits with values from 0 to 4095 .*: .* 16 of"):
            assert load_image(self.write(tmp_path / "xray.png", 4095), 64, "squash").max() == 15

    def test_all_of_it(self, tmp_path):
        assert load_image(self.write(tmp_path / "a.png", 65535), 64, "squash").max() == 255


@pytest.mark.parametrize(
    ("kind", "shape"), [("png", (100, 101)), ("gif", (100, 101)), ("png", (1_001, 1)), ("png", (1, 2_000))]
)
def test_larger_than_max_pixels(kind, shape):
    """Also where it is so long that it takes as much to resize it."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", shape[::-1]).save(file, kind)
    with pytest.raises(ValueError, match=rf"at most 10000 pixels \(max_pixels\). Received: .* {shape[1]} x {shape[0]}"):
        load_image(file.getvalue(), 8, max_pixels=10_000)
    assert load_image(file.getvalue(), 8, max_pixels=400_000).shape == (8, 8, 3)
    assert load_image(file.getvalue(), 8, max_pixels=10**20).shape == (8, 8, 3)
    assert Reading(max_pixels=10**20).pixels(file.getvalue()).shape == (*shape, 3)


def test_exactly_max_pixels():
    picture = tf.io.encode_png(np.full((100, 101, 3), 7, "uint8")).numpy()
    assert load_image(picture, 8, max_pixels=10_100).shape == (8, 8, 3)
    assert Reading(max_pixels=10_100).pixels(picture).shape == (100, 101, 3)
    with pytest.raises(ValueError, match=r"at most 10099 pixels \(max_pixels\)"):
        load_image(picture, 8, max_pixels=10_099)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 10099 pixels"):
        Reading(max_pixels=10_099).pixels(picture)


def test_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="no regular file .*pipe.png"):
        load_image(tmp_path / "pipe.png")
