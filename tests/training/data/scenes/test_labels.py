import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.data.scenes.labels import decode_labels, holds_numbers

RNG = np.random.default_rng(0)


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def indexed(numbers, colours):
    image = Image.frombytes("P", numbers.shape[::-1], numbers.tobytes())
    image.putpalette(RNG.integers(0, 256, 3 * colours).tolist())
    return image


@pytest.fixture(scope="module")
def decode():
    """As in a dataset, in a graph."""
    return tf.function(decode_labels, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparency", [None, 0, b"\x00\xff"])
def test_indexed_colours(decode, bits, transparency, capfd):
    numbers = RNG.integers(0, 2**bits, (9, 13)).astype("uint8")
    options = {} if transparency is None else {"transparency": transparency}
    contents = png(indexed(numbers, 2**bits), bits=bits, **options)
    assert (contents[24], contents[25]) == (bits, 3)
    np.testing.assert_array_equal(decode(contents), numbers)
    assert "PNG" not in capfd.readouterr().err  # nothing is left for a decoder to warn of


def test_indexed_colours_after_other_chunks(decode):
    numbers = RNG.integers(0, 256, (70, 90)).astype("uint8")
    contents = png(indexed(numbers, 256), icc_profile=bytes(3000), dpi=(72, 72))
    np.testing.assert_array_equal(decode(contents), numbers)


@pytest.mark.parametrize(("mode", "bits"), [("1", 1), ("L", 8), ("I;16", 16)])
def test_grey_levels(decode, mode, bits):
    numbers = RNG.integers(0, 2**bits, (9, 13))
    values = numbers.astype(bool) if bits == 1 else numbers.astype("uint16" if bits == 16 else "uint8")
    contents = png(Image.fromarray(values))
    assert (contents[24], contents[25]) == (bits, 0)
    np.testing.assert_array_equal(decode(contents), numbers)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_grey_levels(decode, bits):
    """PIL does not write these: an indexed PNG without its palette."""
    import zlib

    numbers = RNG.integers(0, 2**bits, (9, 13)).astype("uint8")
    contents = png(indexed(numbers, 2**bits), bits=bits)
    header = contents[12:25] + b"\x00" + contents[26:29]
    palette = contents.index(b"PLTE") - 4
    pixels = contents.index(b"IDAT") - 4
    contents = contents[:12] + header + zlib.crc32(header).to_bytes(4, "big") + contents[33:palette] + contents[pixels:]
    np.testing.assert_array_equal(decode(contents), numbers)


@pytest.mark.parametrize(("mode", "expected"), [("1", True), ("L", True), ("P", True), ("RGB", False), ("LA", False)])
def test_colours_are_no_numbers(mode, expected):
    contents = png(Image.fromarray(RNG.integers(0, 256, (9, 13, 3)).astype("uint8")).convert(mode))
    assert bool(holds_numbers(contents)) == expected


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: b"\xff\xd8\xff" + c, lambda c: c[:30], lambda c: c[:900]])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_damaged_files_are_errors(damage, mode):
    contents = png(Image.fromarray(RNG.integers(0, 256, (90, 130)).astype("uint8")).convert(mode))
    files = tf.data.Dataset.from_tensor_slices([contents, damage(contents)])
    assert len([*files.map(decode_labels).ignore_errors()]) == 1
