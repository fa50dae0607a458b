"""Paths and safetensors files, good and evil."""

import json
import os
import shutil
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import keras_cnv2
from tests.checkpoints.reading import DAMAGED, assert_refused, cheap, load, read
from tests.checkpoints.samples import FILES, SEED, classifier, snapshot, unchanged
from tests.golden import rule


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
        assert_refused(path, r"end in one of \.keras, \.weights\.h5, .*\.pt, \.pth, .*\. Received: ")

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
