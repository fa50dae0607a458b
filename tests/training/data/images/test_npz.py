import io
import pickle
import zipfile

import keras
import numpy as np
import pytest

from keras_cnv2.images.normalization import pixel_statistics
from tests.training.small import pretraining, source
from training.commands.evaluation import Evaluation
from training.data.images.npz import MAX_UNNAMED, from_npz
from training.data.images.sources import open_source

pytestmark = pytest.mark.backends


IMAGES = np.zeros((4, 16, 16, 3), "uint8")
LABELS = np.array([0, 1, 1, 0])
GOOD = {"train_images": IMAGES, "train_labels": LABELS}


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def contents_of(array=None, compressed=False):
    """The bytes of an .npy file, or of a good .npz file."""
    file = io.BytesIO()
    if array is not None:
        np.save(file, array)
    else:
        (np.savez_compressed if compressed else np.savez)(file, **GOOD)
    return file.getvalue()


def damaged(contents, place, value=b"\xff" * 8):
    return contents[:place] + value + contents[place + len(value) :]


def of_members(*members):
    """The bytes of an .npz file of these, pairs of a name and what is in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member in members:
            archive.writestr(*member)
    return file.getvalue()


def test_npz(tmp_path):
    data = source()
    path = write(
        tmp_path / "a.npz",
        train_images=data.train.images,
        train_labels=data.train.labels,
        test_images=data.test.images,
        test_labels=data.test.labels,
        class_names=["x", "y", "z"],
    )
    read = from_npz(path, 16)
    assert read.class_names == ("x", "y", "z")
    np.testing.assert_array_equal(read.train.images, data.train.images)
    np.testing.assert_array_equal(read.test.labels, data.test.labels)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_images": np.zeros((4, 16, 16, 3), bool)}, "train_images must be numbers .*bool"),
        ({"train_images": np.zeros((4, 8, 8, 3), "uint8")}, r"shape \(N, 16, 16, channels\).*\(4, 8, 8, 3\)"),
        ({"train_labels": np.zeros(3, int)}, r"train_labels N ints.*\(3,\)"),
        ({"train_labels": np.zeros(4)}, "train_labels N ints.*float64"),
        ({"class_names": ["only"]}, "from 0 to 0.*from 0 to 1"),
        ({"train_labels": np.array([0, 1, -1, 0])}, "labels from -1"),
        ({"train_images": np.zeros((0, 16, 16, 3), "uint8"), "train_labels": np.zeros(0, int)}, "N > 0.*\\(0, 16"),
        (
            {"test_images": np.zeros((0, 16, 16, 3), "uint8"), "test_labels": np.zeros(0, int)},
            "test_images must be .*N > 0",
        ),
        ({"train_labels": np.ones(4, int)}, "two classes or more. Received: .*a.npz with the single label 1"),
        ({"class_names": "cat"}, r"class_names must be strings, one a class.*Received: .*a.npz with <U3 \(\)"),
        ({"class_names": [b"cat", b"dog"]}, r"class_names must be strings.*astype\(str\).*with \|S3 \(2,\)"),
        ({"class_names": [0.5, 1.5]}, r"class_names must be strings.*with float64 \(2,\)"),
        ({"class_names": np.array([], str)}, r"class_names must be strings.*with <U1 \(0,\)"),
        ({"class_names": ["x", "x", "y"]}, "must have different names. Received: .*a.npz with x more than once"),
        ({"train_labels": np.array([0, 1, 1, 2**32]), "class_names": ["x", "y"]}, "0 to 1, .*from 0 to 4294967296"),
        ({"train_labels": np.array([0, 1, 1, 2**31 + 1]), "class_names": ["x", "y"]}, "from 0 to 2147483649"),
        (
            {"train_labels": np.array([0, 1, 2**64 - 1, 0], "uint64")},
            "Received: .*a.npz with label 18446744073709551615",
        ),
        (
            {"train_labels": np.array([0, 1, 1, 3_000_000])},
            "labels must be below 32768 .*no class_names.*label 3000000",
        ),
        (
            {"test_images": IMAGES[..., :1], "test_labels": LABELS},
            "test_images must have the channels of train_images. Received: .*a.npz with 1 and 3",
        ),
        (
            {"test_images": IMAGES / np.float32(255), "test_labels": LABELS},
            "both uint8 or neither. Received: .*a.npz with float32 and uint8",
        ),
        (
            {"train_images": IMAGES / np.float32(255), "test_images": IMAGES, "test_labels": LABELS},
            "both uint8 or neither. Received: .*a.npz with uint8 and float32",
        ),
        ({"class_names": np.array([0x110000, 65], "uint32").view("U1")}, "class_names must be text. Received: .*a.npz"),
        ({"class_names": ["\ud800", "x"]}, "class_names must be text. Received: .*a.npz"),
    ],
)
def test_bad_npz(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        from_npz(write(tmp_path / "a.npz", **{**GOOD, **changed}), 16)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("given", [{"scale": 1.0}, {"mean": (0.5,) * 3, "deviation": (0.2,) * 3}, {}])
def test_values_that_are_no_numbers(tmp_path, split, given):
    """Of whichever split: figures of a network's answers to NaN would be those of the first class."""
    images = {f"{name}_images": IMAGES / np.float32(255) for name in ("train", "test")}
    images[f"{split}_images"][2, 3, 4, 1] = np.nan
    path = write(tmp_path / "a.npz", train_labels=LABELS, test_labels=LABELS, **images)
    with pytest.raises(ValueError, match=rf"{split}_images must be finite numbers\. Received: .*a\.npz with NaN"):
        from_npz(path, 16, **given)


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"no archive",
        pickle.dumps([1, 2]),
        contents_of(IMAGES),
        contents_of()[:2000],
        contents_of()[:-30],
        contents_of(compressed=True)[:200],
        # The checksum, and what is compressed.
        damaged(contents_of(), 1000),
        damaged(contents_of(compressed=True), 60),
        of_members(("train_images.npy", contents_of(np.array([{}]))), ("train_labels.npy", contents_of(LABELS))),
        of_members(("train_images.npy", contents_of(IMAGES)[:-100]), ("train_labels.npy", contents_of(LABELS))),
        # It claims far more than there is.
        of_members(
            ("train_images.npy", contents_of(IMAGES).replace(b"(4, 16, 16, 3)", b"(9" + b"0" * 11 + b",)")),
            ("train_labels.npy", contents_of(LABELS)),
        ),
    ],
)
def test_damaged_npz(tmp_path, contents):
    (tmp_path / "a.npz").write_bytes(contents)
    with pytest.raises(ValueError, match=r"This is no \.npz file, or a damaged one: .+\. Received: .*a\.npz"):
        from_npz(tmp_path / "a.npz", 16)


def test_npz_with_something_else_for_an_array(tmp_path):
    contents = of_members(("train_images", b"abc"), ("train_labels.npy", contents_of(LABELS)))
    (tmp_path / "a.npz").write_bytes(contents)
    with pytest.raises(ValueError, match=r"train_images must be numbers .*with \|S3 \(\)"):
        from_npz(tmp_path / "a.npz", 16)


def test_no_npz(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.npz"):
        from_npz(tmp_path / "a.npz", 16)


def test_npz_without_names(tmp_path):
    labels = np.array([0, 1, 1, MAX_UNNAMED - 1], "uint64")
    read = from_npz(write(tmp_path / "a.npz", train_images=IMAGES, train_labels=labels), 16)
    assert len(read.class_names) == MAX_UNNAMED
    assert read.class_names[:2] == ("class 0", "class 1")
    assert read.train.labels.dtype == "int32"
    np.testing.assert_array_equal(read.train.labels, labels)


def test_share_of_an_npz_is_held_out(tmp_path):
    images, labels = source(train=30).train
    path = write(tmp_path / "a.npz", train_images=images, train_labels=labels)
    recipe = pretraining(data=str(path), image_size=16, validation_share=0.2, train_share=0.5)
    held_out = open_source(recipe)
    assert [*np.bincount(held_out.test.labels)] == [2, 2, 2]
    assert [*np.bincount(held_out.train.labels)] == [4, 4, 4]
    assert not {*map(bytes, held_out.test.images)} & {*map(bytes, held_out.train.images)}
    # For pre-training there is no validation.
    assert (open_source(recipe, labelled=False).size, open_source(recipe, labelled=False).test) == (15, None)


def test_all_of_an_npz_is_evaluated(tmp_path):
    images, labels = source().train
    path = write(tmp_path / "a.npz", train_images=images, train_labels=labels)
    opened = open_source(Evaluation(data=str(path), weights="none", image_size=16))
    assert (opened.size, opened.validation_size) == (0, len(images))


@pytest.mark.parametrize(("key", "missing"), [("test_images", "test_labels"), ("test_labels", "test_images")])
def test_npz_with_half_a_test(tmp_path, key, missing):
    """Said first, whatever else is wrong."""
    path = write(tmp_path / "a.npz", train_images=np.zeros(1), train_labels=np.zeros(1), test=np.zeros(1), **{key: [1]})
    with pytest.raises(ValueError, match=rf"or neither\. Received: .* without {missing}, with .*'{key}'"):
        from_npz(path, 16)


def test_npz_with_other_names(tmp_path, caplog):
    images, labels = source().train
    path = write(tmp_path / "a.npz", train_images=images, train_labels=labels, val_images=images, val_labels=labels)
    assert from_npz(path, 16).validation_size == 0
    assert "a.npz: not read: val_images, val_labels" in caplog.text


def test_npz_of_one_class_without_labels(tmp_path):
    data = {"train_images": np.zeros((4, 16, 16, 3), "uint8"), "train_labels": np.zeros(4, int)}
    recipe = pretraining(data=str(write(tmp_path / "a.npz", **data)), image_size=16)
    assert open_source(recipe, labelled=False).size == 4
    with pytest.raises(ValueError, match="two classes or more"):
        open_source(recipe)


def test_npz_without_training_images(tmp_path):
    with pytest.raises(ValueError, match=r"needs train_images and train_labels.*\['x'\]"):
        from_npz(write(tmp_path / "a.npz", x=np.zeros(3)), 16)


class TestOtherValues:
    """12 bands of 16 bits, and of floats with negative ones: what models expect of pictures becomes of them."""

    def images(self, dtype):
        bands = np.random.default_rng(0).normal(np.arange(12) * 300 + 1000, np.arange(1, 13) * 10, (8, 16, 16, 12))
        return (bands - (2500 if dtype == "float32" else 0)).astype(dtype)

    def write(self, tmp_path, dtype):
        images = self.images(dtype)
        labels = {"train_labels": [0, 1] * 3, "test_labels": [0, 1]}
        np.savez(tmp_path / "a.npz", train_images=images[:6], test_images=images[6:], **labels)
        return tmp_path / "a.npz"

    @pytest.mark.parametrize("dtype", ["uint16", "float32", "int16", "float64"])
    def test_statistics_of_the_data(self, tmp_path, dtype, caplog):
        source = from_npz(self.write(tmp_path, dtype), 16)
        mean, deviation = (keras.ops.convert_to_numpy(x) for x in pixel_statistics(12))
        assert (source.channels, source.train.images.dtype, source.test.images.dtype) == (12, "float32", "float32")
        np.testing.assert_allclose(source.train.images.mean((0, 1, 2)), mean, rtol=1e-3)
        np.testing.assert_allclose(source.train.images.std((0, 1, 2)), deviation, rtol=1e-3)
        # The test's values go the same way.
        raw = self.images(dtype).astype("float64")
        scaled = (raw[6:] - raw[:6].mean((0, 1, 2))) / raw[:6].std((0, 1, 2)) * deviation + mean
        np.testing.assert_allclose(source.test.images, scaled, rtol=1e-3, atol=0.05)
        assert "--mean " in caplog.text
        # Given, they give the same.
        again = from_npz(tmp_path / "a.npz", 16, **source.taken)
        np.testing.assert_array_equal(again.train.images, source.train.images)
        assert again.taken == {}

    def test_scale(self, tmp_path):
        source = from_npz(self.write(tmp_path, "uint16"), 16, scale=4095)
        np.testing.assert_allclose(source.train.images, self.images("uint16")[:6] * (255 / 4095), rtol=1e-6)

    def test_a_constant_channel(self, tmp_path):
        np.savez(tmp_path / "a.npz", train_images=np.full((4, 16, 16, 2), 700, "uint16"), train_labels=LABELS)
        assert np.isfinite(from_npz(tmp_path / "a.npz", 16).train.images).all()

    @pytest.mark.parametrize(
        ("value", "given", "message"),
        [(np.nan, {}, "must be finite numbers"), (0, {"mean": (1.0,), "deviation": (1.0,)}, "number for each channel")],
    )
    def test_impossible(self, tmp_path, value, given, message):
        np.savez(tmp_path / "a.npz", train_images=np.full((4, 16, 16, 2), value, "float32"), train_labels=LABELS)
        with pytest.raises(ValueError, match=message):
            from_npz(tmp_path / "a.npz", 16, **given)


def test_a_member_that_would_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("training.data.images.npz.LARGE", 10**6)
    images = np.zeros((500, 32, 32, 3), "uint8")
    np.savez_compressed(tmp_path / "a.npz", train_images=images, train_labels=np.arange(500))
    with pytest.raises(ValueError, match="train_images.npy has .* bytes that become 1536128"):
        from_npz(tmp_path / "a.npz", 32)
