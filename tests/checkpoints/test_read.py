"""Paths, safetensors files and Keras's files, good and evil. PyTorch's are in test_read_torch.py."""

import itertools
import json
import math
import os
import shutil
import struct
import zipfile
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints.read import open_checkpoint
from tests.checkpoints.samples import FILES, SEED, classifier, snapshot, unchanged
from tests.checkpoints.test_read_torch import assert_refused, cheap, load
from tests.golden import rule

DAMAGED = "damaged, cut off or not of the kind"


def read(path):
    with open_checkpoint(path) as contents:
        return contents


def pseudo(model):
    """Official names -> pseudo-weights."""
    return {name: rule.tensor(SEED, name, value.shape) for name, value in keras_cnv2.state_dict(model).items()}


class TestPaths:
    @pytest.mark.parametrize("make", [str, Path])
    def test_strings_and_paths(self, make):
        name = "stages.3.0.grn.gamma"
        loaded = load(make(FILES / "official_dense.pt"))
        np.testing.assert_array_equal(loaded[name], rule.tensor(SEED, name, (1, 1, 1, 128)))

    def test_path_like(self):
        class Here:
            def __fspath__(self):
                return os.fspath(FILES / "timm_linear.safetensors")

        assert load(Here())["head.fc.bias"].shape == (10,)

    @pytest.mark.parametrize("path", ["model.zip", "model", "", ".", "model.pt.txt", Path("a.h5"), b"a.pt", 3, None])
    def test_unknown_suffix(self, path):
        assert_refused(path, r"ends in one of \.keras, \.weights\.h5, \.safetensors, \.pt, \.pth, \.bin\. Received: ")

    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".safetensors", ".pt", ".pth", ".bin"])
    def test_missing_file(self, suffix, tmp_path):
        with pytest.raises(FileNotFoundError, match="There is no weights file at this path. Received: '.*none"):
            load(tmp_path / f"none{suffix}")

    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".safetensors"])
    def test_directory(self, suffix, tmp_path):
        (tmp_path / f"model{suffix}").mkdir()
        with pytest.raises(FileNotFoundError, match="There is no weights file at this path"):
            load(tmp_path / f"model{suffix}")

    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".safetensors"])
    @pytest.mark.parametrize("content", [b"", b"\0", b"not weights, but words\n" * 100, bytes(10_000), b"PK\5\6"])
    def test_something_else(self, suffix, content, tmp_path):
        (tmp_path / f"model{suffix}").write_bytes(content)
        assert_refused(tmp_path / f"model{suffix}", rf"model{suffix}: .*{DAMAGED}")

    @pytest.mark.parametrize(
        ("source", "suffix"),
        [
            ("official_dense.pt", ".keras"),
            ("official_dense.pt", ".weights.h5"),
            ("official_dense.pt", ".safetensors"),
            ("official_dense_legacy.pt", ".keras"),
            ("official_dense_legacy.pt", ".weights.h5"),
            ("official_dense_legacy.pt", ".safetensors"),
            ("timm_linear.safetensors", ".keras"),
            ("timm_linear.safetensors", ".weights.h5"),
            ("timm_linear.safetensors", ".pt"),
        ],
    )
    def test_other_kind_than_the_name_says(self, source, suffix, tmp_path):
        shutil.copy(FILES / source, tmp_path / f"model{suffix}")
        assert_refused(tmp_path / f"model{suffix}", DAMAGED)


def entry(shape, start, end, dtype="F32"):
    """A tensor in the header of a safetensors file."""
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": [start, end]})


def write_safetensors(path, entries, data, length=None, end=b""):
    """Writes a safetensors file from a list of (name, JSON), which may have a name twice."""
    members = ",".join(f"{json.dumps(name)}:{value}" for name, value in entries)
    header = b"{" + members.encode() + b"}" + end
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def write_arrays(path, arrays, dtypes):
    """Writes a good safetensors file."""
    ends = np.cumsum([0, *(array.nbytes for array in arrays.values())]).tolist()
    entries = [
        (name, entry(arrays[name].shape, start, end, dtypes[name])) for name, start, end in zip(arrays, ends, ends[1:])
    ]
    return write_safetensors(path, entries, b"".join(array.tobytes() for array in arrays.values()))


class TestSafetensors:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "model.safetensors"

    @pytest.mark.parametrize(
        ("code", "dtype"), [("F64", "float64"), ("F32", "float32"), ("F16", "float16"), ("BF16", ml_dtypes.bfloat16)]
    )
    def test_dtypes(self, path, code, dtype):
        expected = {"a": (np.arange(6) / 4).astype(dtype).reshape(2, 3), "b": np.array(1.5, dtype)}
        loaded = load(write_arrays(path, expected, dict.fromkeys(expected, code)))
        for name, value in expected.items():
            assert loaded[name].dtype == dtype
            np.testing.assert_array_equal(loaded[name], value)

    @pytest.mark.parametrize(("code", "dtype"), [("F16", "float16"), ("BF16", ml_dtypes.bfloat16)])
    def test_half_precision_into_a_model(self, path, code, dtype):
        model = classifier()
        expected = {name: value.astype(dtype) for name, value in pseudo(model).items()}
        keras_cnv2.load_checkpoint(model, write_arrays(path, expected, dict.fromkeys(expected, code)))
        for name, value in keras_cnv2.state_dict(model).items():
            np.testing.assert_array_equal(value, expected[name].astype("float32"))

    @pytest.mark.parametrize(
        ("code", "dtype"),
        [("I64", "int64"), ("U8", "uint8"), ("BOOL", "bool"), ("F8_E4M3", "int8"), ("F8_E5M2", "int8")],
    )
    def test_other_numbers(self, path, code, dtype):
        model = classifier()
        tensors = pseudo(model)
        codes = {**dict.fromkeys(tensors, "F32"), "norm.bias": code}
        write_arrays(path, {**tensors, "norm.bias": np.zeros(32, dtype)}, codes)
        before = snapshot(model)
        with pytest.raises(
            keras_cnv2.CheckpointError, match=f"1 misfits:\n  dtype: norm.bias is {code}, expected float"
        ):
            keras_cnv2.load_checkpoint(model, path)
        assert unchanged(model, before)

    @pytest.mark.parametrize(
        ("entries", "size"),
        [
            ([("a", entry([2], 0, 8))], 4),
            ([("a", entry([2], 0, 8))], 12),
            ([("a", entry([3], 0, 8))], 8),
            ([("a", entry([2], 0, 1 << 40))], 8),
            ([("a", entry([1 << 40], 0, 1 << 42))], 8),
            ([("a", entry([1 << 62, 4], 0, 0))], 0),
            ([("a", entry([2], 8, 0))], 8),
            ([("a", entry([-2], 0, 8))], 8),
            ([("a", entry([2], -8, 0))], 8),
            ([("a", entry([2.0], 0, 8))], 8),
            ([("a", entry("2", 0, 8))], 8),
            ([("a", entry([2], 0, 8, "F31"))], 8),
            ([("a", entry([2], 0, 8)), ("b", entry([2], 0, 8))], 8),
            ([("a", entry([2], 0, 8)), ("b", entry([2], 4, 12))], 12),
            ([("a", entry([2], 0, 8)), ("b", entry([2], 12, 20))], 20),
            ([("a", "null")], 8),
            ([("a", "{}")], 8),
        ],
    )
    def test_tensors_that_do_not_match_the_file(self, path, entries, size):
        write_safetensors(path, entries, bytes(size))
        with cheap():
            assert_refused(path, DAMAGED)

    @pytest.mark.parametrize("length", [0, 1, 40, 1 << 20, 1 << 32, 1 << 62, (1 << 64) - 1])
    def test_length_of_the_header(self, path, length):
        write_safetensors(path, [("a", entry([2], 0, 8))], bytes(8), length)
        with cheap():
            assert_refused(path, DAMAGED)

    def test_more_behind_the_header(self, path):
        assert_refused(write_safetensors(path, [("a", entry([2], 0, 8))], bytes(8), end=b"x"), DAMAGED)

    def test_deep_header(self, path):
        write_safetensors(path, [("a", "[" * 100_000)], b"")
        with cheap():
            assert_refused(path, DAMAGED)

    def test_name_twice_with_data_of_its_own(self, path):
        assert_refused(write_safetensors(path, [("a", entry([1], 0, 4)), ("a", entry([1], 4, 8))], bytes(8)), DAMAGED)

    def test_name_twice_over_the_same_data(self, path):
        """One tensor in the end: the model's shape decides whether it fits."""
        loaded = load(write_safetensors(path, [("a", entry([2], 0, 8)), ("a", entry([1, 2], 0, 8))], bytes(8)))
        assert {name: array.shape for name, array in loaded.items()} == {"a": (1, 2)}

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("{", DAMAGED),
            ("words", DAMAGED),
            ("[" * 100_000, DAMAGED),
            ("[]x", DAMAGED),
            ("[1]", "make no sense"),
            ("3", "make no sense"),
            ("null", "make no sense"),
            ('{"class_names": "words"}', "make no sense"),
            ('{"class_names": [1]}', "make no sense"),
            ('{"class_names": {"a": 1}}', "make no sense"),
            ('{"image_size": 0}', "make no sense"),
            ('{"image_size": 224.0}', "make no sense"),
            ('{"image_size": true}', "make no sense"),
            ('{"image_size": NaN}', "make no sense"),
            ('{"resize": "pad"}', "make no sense"),
            ('{"resize": ["crop"]}', "make no sense"),
        ],
    )
    def test_senseless_metadata(self, path, text, match):
        metadata = ("__metadata__", json.dumps({"keras_cnv2": text}))
        assert_refused(write_safetensors(path, [metadata, ("a", entry([2], 0, 8))], bytes(8)), match)

    @pytest.mark.parametrize("metadata", ["3", "[]", '{"keras_cnv2": 3}', '{"keras_cnv2": {}}', '{"keras_cnv2": null}'])
    def test_metadata_that_are_no_strings(self, path, metadata):
        entries = [("__metadata__", metadata), ("a", entry([2], 0, 8))]
        assert_refused(write_safetensors(path, entries, bytes(8)), DAMAGED)

    def test_metadata(self, path):
        ours = {"class_names": ["ä", "b"], "image_size": 96, "resize": "crop"}
        text = json.dumps({"keras_cnv2": json.dumps({**ours, "later": 1}), "format": "pt"})
        write_safetensors(path, [("__metadata__", text), ("a", entry([2], 0, 8))], bytes(8))
        assert read(path).metadata == ours

    @pytest.mark.parametrize("metadata", [[], [("__metadata__", '{"format": "pt"}')], [("__metadata__", "{}")]])
    def test_no_metadata(self, path, metadata):
        assert read(write_safetensors(path, [*metadata, ("a", entry([2], 0, 8))], bytes(8))).metadata == {}


# Keras's files. A layer called "head" with two weights:
ARRAYS = {"head/0": np.arange(6, dtype="float32").reshape(2, 3), "head/1": np.ones(3, "float32")}
VARS = "layers/dense/vars"


@pytest.fixture
def h5(tmp_path):
    """Path of a good `.weights.h5` file."""
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[f"{VARS}/{name[-1]}"] = array
        file[VARS].attrs["name"] = "head"
    return path


def replace(path, name, **kwargs):
    """Puts another dataset in the place of one."""
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, **kwargs)


ELSEWHERE = "elsewhere, compressed or cut, which Keras never writes"


class TestWeightsH5:
    def test_good(self, h5):
        loaded = load(h5)
        assert loaded.keys() == ARRAYS.keys()
        for name, expected in ARRAYS.items():
            np.testing.assert_array_equal(loaded[name], expected)

    @pytest.mark.parametrize("chunks", [None, True])
    @pytest.mark.parametrize("shape", [(10**6, 10**6), (1 << 40,), (3,)])
    def test_array_without_storage(self, h5, shape, chunks):
        """The last has the right shape: HDF5 would make it up of zeros."""
        replace(h5, f"{VARS}/1", shape=shape, dtype="float32", chunks=chunks)
        with cheap():
            assert_refused(h5, ELSEWHERE)

    def test_compressed_array(self, h5):
        # Three numbers, in a chunk of 256 MB: HDF5 inflates all of it.
        zeros = np.zeros(1 << 26, "float32")
        options = {"maxshape": (None,), "chunks": zeros.shape, "compression": "gzip", "compression_opts": 1}
        replace(h5, f"{VARS}/1", data=zeros, **options)
        with h5py.File(h5, "a") as file:
            file[f"{VARS}/1"].resize((3,))
        assert h5.stat().st_size < 4 << 20
        with cheap():
            assert_refused(h5, ELSEWHERE)

    def test_array_in_another_file(self, h5, tmp_path):
        """HDF5 would read any file that the user may read."""
        (tmp_path / "secret").write_bytes(b"my password!")
        replace(h5, f"{VARS}/1", shape=(3,), dtype="float32", external=[(tmp_path / "secret", 0, 12)])
        assert_refused(h5, ELSEWHERE)

    def test_virtual_array(self, h5, tmp_path):
        shutil.copy(h5, tmp_path / "other.h5")
        layout = h5py.VirtualLayout((3,), "float32")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", f"{VARS}/1", (3,))
        with h5py.File(h5, "a") as file:
            del file[f"{VARS}/1"]
            file.create_virtual_dataset(f"{VARS}/1", layout)
        assert_refused(h5, ELSEWHERE)

    @pytest.mark.parametrize("name", ["layers", "layers/dense", "layers/dense/vars", "layers/dense/vars/1", "more"])
    @pytest.mark.parametrize("link", ["soft", "external"])
    def test_links(self, h5, tmp_path, name, link):
        shutil.copy(h5, tmp_path / "other.h5")
        with h5py.File(h5, "a") as file:
            if name in file:
                file.move(name, "away")
            file[name] = h5py.SoftLink("/away") if link == "soft" else h5py.ExternalLink("other.h5", f"/{VARS}")
        assert_refused(h5, "refers to weights elsewhere")

    def test_endlessly_many_paths(self, h5):
        with h5py.File(h5, "a") as file:
            groups = [file.create_group(f"layers/g{k}") for k in range(60)]
            for outer, inner in itertools.pairwise(groups):
                outer["left"], outer["right"] = inner, inner
        with cheap():
            assert_refused(h5, "a group or an array twice")

    def test_circle(self, h5):
        with h5py.File(h5, "a") as file:
            file["layers/dense/again"] = file["layers"]
        assert_refused(h5, "a group or an array twice")

    def test_deep_groups(self, h5):
        with h5py.File(h5, "a") as file:
            file.create_group("/".join("g" * 3000))
        assert_refused(h5, "RecursionError")

    @pytest.mark.parametrize(
        "data", ["text", np.array(["a", "b"], h5py.string_dtype()), h5py.Empty("float32"), np.zeros(3, "V4")]
    )
    def test_other_data(self, h5, data):
        replace(h5, f"{VARS}/1", data=data)
        model = classifier()
        before = snapshot(model)
        with pytest.raises(keras_cnv2.CheckpointError, match=r"model\.weights\.h5"):
            keras_cnv2.load_checkpoint(model, h5)
        assert unchanged(model, before)

    @pytest.mark.parametrize("name", [np.arange(3), h5py.Empty("S1"), 3])
    def test_layer_without_a_name(self, h5, name):
        with h5py.File(h5, "a") as file:
            file[VARS].attrs["name"] = name
        assert_refused(h5, DAMAGED)

    def test_group_in_the_place_of_an_array(self, h5):
        with h5py.File(h5, "a") as file:
            file.create_group(f"{VARS}/2")
        assert_refused(h5, DAMAGED)

    def test_array_in_the_place_of_a_group(self, h5):
        with h5py.File(h5, "a") as file:
            del file[VARS]
            file.create_dataset(VARS, shape=(1 << 40,), dtype="float32")
        with cheap():
            assert_refused(h5, DAMAGED)


def write_keras(path, h5, config='{"config": {}}', compress=(), level=1):
    """Writes a `.keras` file around a `.weights.h5` file; the entries named in `compress` are compressed."""
    entries = {"metadata.json": "{}", "config.json": config, "model.weights.h5": h5.read_bytes()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            kind = zipfile.ZIP_DEFLATED if name in compress else zipfile.ZIP_STORED
            archive.writestr(name, content, kind, level)
    return path


class TestKeras:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "model.keras"

    def test_good(self, path, h5):
        config = {"registered_name": "other>Model", "config": {"image_size": "not ours"}}
        write_keras(path, h5, json.dumps(config))
        np.testing.assert_array_equal(load(path)["head/0"], ARRAYS["head/0"])
        assert read(path).config == config
        assert read(path).metadata == {}

    def test_what_keras_writes_is_not_compressed(self, path):
        """Why compressed files may be refused."""
        model = classifier()
        model.compile("adam", "mse")
        model.save(path)
        with zipfile.ZipFile(path) as archive:
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert math.prod(load(path)["head/0"].shape) == 320

    @pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "metadata.json"])
    def test_compressed(self, path, h5, name):
        assert_refused(write_keras(path, h5, compress=[name]), "may be a zip bomb")

    def test_bomb_of_configuration(self, path, h5):
        write_keras(path, h5, '{"a": "' + " " * (256 << 20) + '"}', ["config.json"])
        assert path.stat().st_size < 4 << 20
        with cheap():
            assert_refused(path, "may be a zip bomb")

    def test_bomb_of_weights(self, path, h5):
        with h5py.File(h5, "a") as file:
            file["layers/dense/more"] = np.zeros(64 << 20, "float32")
        write_keras(path, h5, compress=["model.weights.h5"])
        assert path.stat().st_size < 4 << 20
        with cheap():
            assert_refused(path, "may be a zip bomb")

    @pytest.mark.parametrize("field", ["file_size", "compress_size"])
    @pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
    def test_entry_that_claims_more_than_the_file(self, path, h5, name, field):
        with zipfile.ZipFile(write_keras(path, h5), "a") as archive:
            setattr(archive.getinfo(name), field, 3 << 30)
            archive.comment = b"written anew"
        with cheap():
            assert_refused(path, "may be a zip bomb")

    @pytest.mark.parametrize(
        "config",
        ["", "words", "{", "[" * 100_000, "[]", "3", "{}", '{"registered_name": "keras_cnv2>ConvNeXtV2"}'],
    )
    def test_configuration_that_makes_no_sense(self, path, h5, config):
        assert_refused(write_keras(path, h5, config), DAMAGED)

    @pytest.mark.parametrize("arguments", [{"image_size": -1}, {"class_names": "abc"}, {"resize": 3}])
    def test_metadata_that_make_no_sense(self, path, h5, arguments):
        config = {"registered_name": "keras_cnv2>ConvNeXtV2", "config": arguments}
        assert_refused(write_keras(path, h5, json.dumps(config)), "the metadata of the weights make no sense")

    def test_changed_number(self, path, h5):
        write_keras(path, h5)
        content, number = bytearray(path.read_bytes()), ARRAYS["head/0"].tobytes()[:16]
        assert content.count(number) == 1
        content[content.index(number)] ^= 1
        path.write_bytes(content)
        assert_refused(path, "Bad CRC-32")

    @pytest.mark.parametrize("missing", ["config.json", "model.weights.h5"])
    def test_missing_entry(self, path, h5, missing):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {
                "config.json": '{"registered_name": "a", "config": {}}',
                "model.weights.h5": h5.read_bytes(),
            }.items():
                if name != missing:
                    archive.writestr(name, content)
        assert_refused(path, f"no item named '{missing}'")
