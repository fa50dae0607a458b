"""PyTorch's files that claim more than they hold, or cost more than they are worth."""

import pickle
import struct
import zipfile

import numpy as np
import pytest

from keras_cnv2.checkpoints import read_pickle
from keras_cnv2.checkpoints.read import open_checkpoint
from tests.checkpoints.reading import assert_refused, cheap, load
from tests.checkpoints.torch_files import (
    NUMBERS,
    call,
    dict_of,
    named,
    plain,
    storage,
    tensor,
    tuple_of,
    write_legacy,
    write_zip,
)

HUGE = 1 << 62


class TestImpossibleTensors:
    @pytest.mark.parametrize(
        ("shape", "strides", "offset"),
        [
            ((25,), (1,), 0),
            ((24,), (1,), 1),
            ((2,), (24,), 0),
            ((5, 5), (5, 1), 0),
            ((), (), 24),
            ((-1,), (1,), 0),
            ((-1, -1), (1, 1), 0),
            ((4,), (-1,), 10),
            ((4,), (1,), -1),
            ((HUGE,), (1,), 0),
            ((HUGE, HUGE), (0, 1), 0),
            ((2,), (HUGE,), 0),
            ((2, 2), (HUGE, HUGE), 0),
            ((2, 2), (HUGE, -HUGE), 0),
            ((1,), (1,), HUGE),
            ((1,), (1,), 1 << 64),
            ((1 << 70,), (0,), 0),
            ((2, 3), (1,), 0),
            ((2,), (1, 1), 0),
            ((True,), (1,), 0),
            ((2.0,), (1,), 0),
            (("a",), (1,), 0),
            ("ab", "ab", 0),
            ([2], [1], 0),
            ((2,), (1,), None),
            ((1,) * 33, (1,) * 33, 0),
        ],
    )
    def test_outside_of_the_storage(self, write, shape, strides, offset):
        assert_refused(write(dict_of({"a": tensor(shape, strides, offset)})), "impossible tensor")

    @pytest.mark.parametrize("stored", [plain(None), plain("0"), plain((1, 2, 3)), tensor(), b"}"])
    def test_of_no_storage(self, write, stored):
        assert_refused(write(dict_of({"a": tensor(stored=stored)})), "impossible tensor")

    @pytest.mark.parametrize(
        "reference",
        [
            plain("storage"),
            plain([]),
            tuple_of(),
            tuple_of(plain("module"), named("torch.FloatStorage"), plain("0"), plain("cpu"), plain(24)),
            tuple_of(plain("storage"), plain("FloatStorage"), plain("0"), plain("cpu"), plain(24)),
            tuple_of(plain("storage"), named("torch.Size"), plain("0"), plain("cpu"), plain(24)),
            tuple_of(plain("storage"), named("torch.FloatStorage"), plain(0), plain("cpu"), plain(24)),
            tuple_of(plain("storage"), named("torch.FloatStorage"), plain("0"), plain("cpu"), plain(-24)),
            tuple_of(plain("storage"), named("torch.FloatStorage"), plain("0"), plain("cpu"), plain(24.0)),
            tuple_of(
                plain("storage"), named("torch.FloatStorage"), plain("0"), plain("cpu"), plain(24), plain(("v", 0, 3))
            ),
            tuple_of(plain("storage"), named("torch.FloatStorage"), plain("0"), plain("cpu"), plain(24), b"N", b"N"),
        ],
    )
    def test_unknown_references(self, write, reference):
        assert_refused(write(dict_of({"a": tensor(stored=reference + b"Q")})), "unknown reference|impossible storage")

    @pytest.mark.parametrize("count", [0, 23, 25, 48, HUGE, (1 << 63) - 1])
    def test_size_of_the_storage(self, write, count):
        assert_refused(write(dict_of({"a": tensor((0,), stored=storage("0", count))})), "size|too early|Overflow")

    def test_storage_of_two_sizes(self, write):
        tensors = {"a": tensor(), "b": tensor((4,), stored=storage("0", 24, "HalfStorage"))}
        assert_refused(write(dict_of(tensors)), "size")

    def test_missing_storage(self, write):
        assert_refused(write(dict_of({"a": tensor(stored=storage("1"))})), "damaged")

    def test_path_as_the_name_of_a_storage(self, write):
        assert_refused(write(dict_of({"a": tensor(stored=storage("../../../etc/passwd"))})), "damaged")

    def test_surplus_storage(self, tmp_path):
        contents, storages = dict_of({"a": tensor()}), {"0": NUMBERS, "1": NUMBERS}
        assert_refused(write_legacy(tmp_path / "model.pt", contents, storages), "not those of its tensors")

    def test_storages_with_names_that_are_no_strings(self, tmp_path):
        path = write_legacy(tmp_path / "model.pt", dict_of({"a": tensor()}))
        path.write_bytes(path.read_bytes().replace(pickle.dumps(["0"], 2), pickle.dumps([("0",)], 2)))
        assert_refused(path, "not those of its tensors")


def nested_tuples(levels):
    """2 ** levels tuples, in a few bytes."""
    return b")" + b"q\x00h\x00\x86" * levels


class TestBombs:
    """Small files that claim much: an error, quickly and in little memory."""

    def test_compressed_pickle(self, tmp_path):
        archive = zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED)
        with archive, archive.open("model/data.pkl", "w") as entry:
            for _ in range(64):
                entry.write(bytes(1 << 20))
        assert (tmp_path / "model.pt").stat().st_size < 1 << 17
        with cheap():
            assert_refused(tmp_path / "model.pt", "may be a zip bomb")

    def test_compressed_storages(self, tmp_path):
        numbers = np.zeros(16 << 20, "float32")
        contents = dict_of({"a": tensor(numbers.shape, stored=storage("0", numbers.size))})
        write_zip(tmp_path / "model.pt", contents, {"0": numbers}, compression=zipfile.ZIP_DEFLATED)
        with cheap():
            assert_refused(tmp_path / "model.pt", "may be a zip bomb")

    def test_entries_over_the_same_bytes(self, tmp_path):
        numbers = np.zeros(1 << 20, "float32")
        keys = [str(key) for key in range(64)]
        contents = dict_of({key: tensor(numbers.shape, stored=storage(key, numbers.size)) for key in keys})
        with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
            archive.writestr("model/data.pkl", b"\x80\x02" + contents + b".")
            archive.writestr("model/data/0", numbers.tobytes())
            for key in keys[1:]:  # only their names are added
                entry = archive.getinfo("model/data/0")
                again = zipfile.ZipInfo(f"model/data/{key}")
                for field in ("header_offset", "compress_size", "file_size", "CRC", "compress_type"):
                    setattr(again, field, getattr(entry, field))
                archive.filelist.append(again)
        with cheap():
            assert_refused(tmp_path / "model.pt", "may be a zip bomb")

    @pytest.mark.parametrize("field", ["file_size", "compress_size"])
    @pytest.mark.parametrize("name", ["model/data.pkl", "model/byteorder", "model/data/0"])
    def test_entry_that_claims_more_than_the_file(self, tmp_path, name, field):
        path = write_zip(tmp_path / "model.pt", dict_of({"a": tensor()}))
        with zipfile.ZipFile(path, "a") as archive:
            setattr(archive.getinfo(name), field, 3 << 30)
            archive.comment = b"written anew"
        with cheap():
            assert_refused(path, "may be a zip bomb")

    def test_long_pickle(self, write):
        path = write(dict_of({"a": tensor(), "b": plain("x" * read_pickle.LIMIT)}))
        with cheap():
            assert_refused(path, "more than any checkpoint needs|but only [0-9]+ remain")

    def test_tensor_of_a_few_bytes(self, write):
        path = write(dict_of({"a": tensor((10**6, 10**6), (0, 0))}))
        with cheap(), open_checkpoint(path) as contents:
            assert contents.tensors["a"].shape == (10**6, 10**6)

    def test_views_do_not_keep_their_storage(self, write):
        numbers = np.arange(1 << 20, dtype="float32")
        views = {str(k): tensor((8,), (1 << 17,), k, storage("0", numbers.size)) for k in range(100)}
        path = write(dict_of(views), {"0": numbers})
        with cheap():
            loaded = load(path)
        assert loaded["99"].tolist() == [99 + k * (1 << 17) for k in range(8)]

    @pytest.mark.parametrize(
        "instruction",
        [
            b"r\xff\xff\xff\xff",  # LONG_BINPUT: a memo of 2 ** 32 objects
            b"p4294967295\n",  # PUT
            b"j\xff\xff\xff\xff",  # LONG_BINGET
            b"X\xff\xff\xff\xff",  # BINUNICODE
            b"B\xff\xff\xff\xff",  # BINBYTES
            b"T\xff\xff\xff\x7f",  # BINSTRING
            b"\x8b\xff\xff\xff\x7f",  # LONG4
            b"\x8e" + struct.pack("<Q", 1 << 62),  # BINBYTES8
            b"\x8e" + struct.pack("<Q", 1 << 40),
            b"\x8d" + struct.pack("<Q", 1 << 62),  # BINUNICODE8
            b"\x96" + struct.pack("<Q", 1 << 62),  # BYTEARRAY8
            b"\x95" + struct.pack("<Q", 1 << 62),  # FRAME
        ],
    )
    def test_instruction_that_claims_much(self, write, instruction):
        # Some of these are harmless, and then what stands behind them is no state dict.
        path = write(b"N" + instruction)
        with cheap():
            assert_refused(path)

    @pytest.mark.parametrize(
        "key", [nested_tuples(60), nested_tuples(1), b"N", b"\x88", b"G" + bytes(8), plain(1 << 61)]
    )
    def test_keys_that_are_slow_to_hash(self, write, key):
        path = write(b"}" + key + b"Ns")
        with cheap():
            assert_refused(path, "a key of a dict is of the type")

    def test_deep_key(self, write):
        """To hash it would overflow the stack of C."""
        path = write(b"})" + b"\x85" * 200_000 + b"Ns")
        with cheap(megabytes=64):
            assert_refused(path, "a key of a dict is of the type tuple")

    @pytest.mark.parametrize(
        "contents",
        [
            dict_of({"model": dict_of({"a": nested_tuples(60)})}),
            nested_tuples(60),
            nested_tuples(60) + b"Q",
            tuple_of(nested_tuples(60), b"N", b"N", b"N", b"N") + b"Q",
            tuple_of(plain("storage"), nested_tuples(60), plain("0"), plain("cpu"), plain(24)) + b"Q",
            tuple_of(plain("storage"), named("torch.FloatStorage"), nested_tuples(60), b"N", plain(24)) + b"Q",
            tuple_of(plain("storage"), named("torch.FloatStorage"), plain("0"), b"N", nested_tuples(60)) + b"Q",
            nested_tuples(60) + b")R",
            named("argparse.Namespace") + nested_tuples(60) + b"R",
            nested_tuples(60) + nested_tuples(60) + b"\x93",
            nested_tuples(60) + plain("a") + b"Ns",
            call("torch._utils._rebuild_tensor_v2", nested_tuples(60), b"K\x00", b")", b")", b"N", b"N"),
            call(
                "torch._utils._rebuild_tensor_v2", storage(), b"K\x00", nested_tuples(60), nested_tuples(60), b"N", b"N"
            ),
        ],
    )
    def test_nested_tuples_where_they_may_be_printed_or_compared(self, write, contents):
        path = write(contents)
        with cheap():
            assert_refused(path)

    def test_sizes_that_are_slow_to_multiply(self, write):
        size = plain(2) + b"q\x05" + b"h\x05" * 100_000
        parts = storage(), b"K\x00", b"(" + size + b"t", b"(" + size + b"t", b"N", b"N"
        path = write(call("torch._utils._rebuild_tensor_v2", *parts))
        with cheap(megabytes=64):
            assert_refused(path, "impossible tensor")

    @pytest.mark.parametrize("name", ["collections.OrderedDict", "argparse.Namespace", "torch.Size"])
    def test_many_copies_of_a_long_list(self, write, name):
        copy = named(name) + b"h\x05R"
        path = write(b"(" + tuple_of(b"](" + b"N" * 200_000 + b"e") + b"q\x05" + copy * 10_000 + b"t")
        with cheap(megabytes=64):
            assert_refused(path)

    def test_many_copies_of_many_attributes(self, write):
        state = dict_of({f"a{k}": b"N" for k in range(10_000)}) + b"q\x05"
        copies = (named("argparse.Namespace") + b")\x81h\x05b") * 10_000
        path = write(b"(" + state + copies + b"t", {})
        with cheap(megabytes=64):
            assert_refused(path, "no state dict")
