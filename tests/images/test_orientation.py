"""Pictures are turned as PIL turns them."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_cnv2.images.orientation import orientation_of, stored_window, turned, turned_sides
from keras_cnv2.images.pictures import Reading, load_image

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3)).astype("uint8")


def exif(orientation, order="<", kind="H"):
    """EXIF data with the tag between two others."""
    value = struct.pack(order + kind, orientation).ljust(4, b"\0")
    tags = [
        (0x10F, 2, 4, b"me\0\0"),
        (0x112, {"H": 3, "I": 4}[kind], 1, value),
        (0x128, 3, 1, struct.pack(order + "HH", 2, 0)),
    ]
    entries = b"".join(struct.pack(order + "HHI", *tag[:3]) + tag[3] for tag in tags)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return b"Exif\0\0" + head + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def encoded(kind="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **({"quality": 100} if kind != "PNG" else {}), **options)
    return file.getvalue()


def with_xmp(contents):
    """A JPEG with another APP1 block ahead of all."""
    block = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>"
    return contents[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + contents[2:]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def after_pixels(contents, data):
    """A PNG with EXIF data behind its pixels."""
    end = contents.rindex(b"IEND") - 4
    return contents[:end] + chunk(b"eXIf", data) + contents[end:]


def assert_like_pil(contents):
    image = Image.open(io.BytesIO(contents))
    stored, expected = (np.asarray(each.convert("RGB")) for each in (image, ImageOps.exif_transpose(image)))
    found = Reading().pixels(contents).numpy()
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1  # of a WebP
    np.testing.assert_array_equal(Reading(exif_orientation=False).pixels(contents).shape, stored.shape)
    return expected


@pytest.mark.parametrize("orientation", range(1, 9))
class TestLikePIL:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_kinds(self, kind, order, orientation):
        contents = encoded(kind, exif=exif(orientation, order))
        assert_like_pil(contents)
        assert int(orientation_of(contents)) == orientation

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_long_number(self, order, orientation):
        assert_like_pil(encoded(exif=exif(orientation, order, "I")))

    def test_after_other_blocks(self, orientation):
        assert_like_pil(with_xmp(encoded(exif=exif(orientation))))
        assert_like_pil(after_pixels(encoded("PNG"), exif(orientation)[6:]))
        assert_like_pil(encoded("WEBP", exif=exif(orientation)[6:]))


def directory(*tags, order="<", number=42):
    """EXIF data of these tags: number, type, count, and four bytes."""
    entries = b"".join(struct.pack(order + "HHI", *tag[:3]) + tag[3] for tag in tags)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", number, 8)
    return head + struct.pack(order + "H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
class TestOddTags:
    """What a value is and whether it counts, where there are several, of several values, or of other types."""

    def assert_orientation(self, expected, order, *tags):
        contents = encoded("PNG", exif=directory(*tags, order=order))
        assert_like_pil(contents)
        assert int(orientation_of(contents)) == expected

    def test_the_first_of_several(self, order):
        six, three, none = (struct.pack(order + "HH", value, 0) for value in (6, 3, 65535))
        self.assert_orientation(6, order, (0x112, 3, 1, six), (0x112, 3, 1, three))
        self.assert_orientation(1, order, (0x112, 3, 1, none), (0x112, 3, 1, six))

    @pytest.mark.parametrize("count", [0, 0x10001, 2**32 - 1])
    def test_values_that_are_elsewhere(self, order, count):
        """An entry of many values holds the place where they are, which is no orientation; one of none holds none."""
        for place in (struct.pack(order + "I", 6), struct.pack(order + "HH", 6, 0)):
            self.assert_orientation(1, order, (0x112, 3, count, place))
            self.assert_orientation(8, order, (0x112, 3, count, place), (0x112, 3, 1, struct.pack(order + "HH", 8, 0)))

    def test_other_types(self, order):
        pair = struct.pack(order + "HH", 6, 3)
        self.assert_orientation(6, order, (0x112, 3, 2, pair))
        self.assert_orientation(1, order, (0x112, 4, 1, struct.pack(order + "I", 0x60006)))
        self.assert_orientation(1, order, (0x112, 4, 2, struct.pack(order + "I", 6)))  # the place of two numbers
        self.assert_orientation(6, order, (0x112, 8, 1, pair))
        self.assert_orientation(6, order, (0x112, 9, 1, struct.pack(order + "I", 6)))


def test_no_tiff_files():
    tag = (0x112, 3, 1, b"\6\0\0\0")
    for number, expected in ((42, 6), (42 << 8, 6), (43, 1), (0, 1)):
        assert int(orientation_of(encoded("PNG", exif=directory(tag, number=number)))) == expected


def test_webp_with_a_chunk_of_odd_length():
    """A byte follows it, so that the next one begins at an even place."""
    contents = encoded("WEBP", exif=exif(6))
    at = contents.index(b"EXIF")
    assert int(orientation_of(contents[:at] + b"odd \3\0\0\0abc\0" + contents[at:])) == 6


def test_image():
    contents = encoded("PNG", exif=exif(6))
    upright = io.BytesIO()
    ImageOps.exif_transpose(Image.open(io.BytesIO(contents))).save(upright, "PNG")
    np.testing.assert_array_equal(load_image(contents, 16), load_image(upright.getvalue(), 16))
    as_stored = load_image(contents, 16, exif_orientation=False)
    np.testing.assert_array_equal(as_stored, load_image(encoded("PNG"), 16))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_windows(orientation):
    """A part of the picture as it is seen is found among the pixels as they are stored."""
    orientation = tf.constant(orientation)
    seen = turned(tf.constant(PIXELS), orientation)
    sides = turned_sides(tf.constant(PIXELS.shape[:2]), orientation)
    assert sides.numpy().tolist() == [*seen.shape[:2]]
    corner, extent = tf.constant([3, 5]), tf.constant([7, 11])
    (top, left), (height, width) = (x.numpy() for x in stored_window(corner, extent, sides, orientation))
    stored = tf.constant(PIXELS[top : top + height, left : left + width])
    np.testing.assert_array_equal(turned(stored, orientation), seen[3:10, 5:16])


class TestNotTurned:
    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_numbers_that_mean_nothing(self, orientation):
        assert int(orientation_of(encoded(exif=exif(orientation)))) == 1

    def test_xmp(self):
        assert int(orientation_of(with_xmp(encoded()))) == 1

    def test_another_picture_behind_it(self):
        """As in files of several pictures: each has its own orientation."""
        first = io.BytesIO()
        Image.new("RGB", (8, 8)).save(first, "JPEG")  # of so few bytes that a search would reach the other
        contents = first.getvalue() + encoded(exif=exif(6))
        assert_like_pil(contents)
        assert int(orientation_of(contents)) == 1

    def test_webp_that_announces_none(self):
        contents = bytearray(encoded("WEBP", exif=exif(6)))
        contents[20] &= ~8
        assert int(orientation_of(bytes(contents))) == 1

    @pytest.mark.parametrize("contents", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF____WEBPVP8X\xff"])
    def test_no_picture(self, contents):
        assert int(orientation_of(contents)) == 1

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_damaged(self, kind):
        """Anything may stand in the blocks: there is a number from 1 to 8, and no error."""
        rng = np.random.default_rng(0)
        contents = encoded(kind, exif=exif(6))
        at = contents.index(b"II*\0") - 20
        for _ in range(60):
            bad = bytearray(contents)
            for place in rng.integers(at, min(at + 80, len(bad)), 3):
                bad[place] = rng.choice([0, 1, 255, rng.integers(256)])
            assert 1 <= int(orientation_of(bytes(bad[: rng.integers(at, at + 120)]))) <= 8
            assert 1 <= int(orientation_of(bytes(bad))) <= 8

    @pytest.mark.parametrize(
        "hostile",
        [
            b"\xff\xd8\xff" + bytes(2**20),
            b"\xff\xd8" + b"\xff\xe0\0\2" * 2**18,
            b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"") * 2**14,
        ],
    )
    def test_endless_blocks(self, hostile):
        assert int(orientation_of(hostile)) == 1
