"""PyTorch's files, made by hand, good and evil. No PyTorch here, but for the last test."""

import argparse
import contextlib
import math
import pickle
import shutil
import struct
import time
import tracemalloc
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints import read_pickle, read_torch
from keras_cnv2.checkpoints.read import open_checkpoint
from tests.checkpoints.samples import FILES, SMALL

NUMBERS = np.arange(24, dtype="float32")

# The parts of a pickle, in its own instructions.


def plain(value):
    """Containers, numbers and strings."""
    return pickle.dumps(value, 2)[2:-1]


def named(name):
    """A class or a function, "module.name"."""
    return "c{}\n{}\n".format(*name.rsplit(".", 1)).encode()


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def dict_of(items):
    return b"}(" + b"".join(plain(key) + value for key, value in items.items()) + b"u"


def call(name, *arguments):
    return named(name) + tuple_of(*arguments) + b"R"


def build(instance, state):
    """An object, changed by `state`: a dict of attributes, or a pair of such dicts."""
    return instance + state + b"b"


def storage(key="0", count=24, kind="FloatStorage"):
    return tuple_of(plain("storage"), named(f"torch.{kind}"), plain(key), plain("cpu"), plain(count)) + b"Q"


def tensor(shape=(24,), strides=None, offset=0, stored=None):
    """A tensor; by default contiguous, in the storage "0" of 24 numbers."""
    if strides is None:
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    hooks = call("collections.OrderedDict")
    parts = stored or storage(), plain(offset), plain(shape), plain(strides), plain(False), hooks
    return call("torch._utils._rebuild_tensor_v2", *parts)


# The two kinds of files.


def write_zip(path, contents, storages=None, byteorder=b"little", compression=zipfile.ZIP_STORED):
    """Writes a zip file from instructions and storages, `NUMBERS` by default."""
    storages = {"0": NUMBERS} if storages is None else storages
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02" + contents + b".")
        archive.writestr("model/byteorder", byteorder)
        for key, numbers in storages.items():
            archive.writestr(f"model/data/{key}", numbers.tobytes())
    return path


def write_legacy(path, contents, storages=None, little_endian=True):
    """Writes a legacy file from instructions and storages, `NUMBERS` by default."""
    storages = {"0": NUMBERS} if storages is None else storages
    system = {"protocol_version": 1001, "little_endian": little_endian}
    start = b"".join(pickle.dumps(value, 2) for value in (read_torch.LEGACY_MAGIC, 1001, system))
    numbers = b"".join(struct.pack("<Q", array.size) + array.tobytes() for array in storages.values())
    path.write_bytes(start + b"\x80\x02" + contents + b"." + pickle.dumps([*storages], 2) + numbers)
    return path


@pytest.fixture(params=[write_zip, write_legacy])
def write(request, tmp_path):
    """Writes a file of either kind: `write(contents, storages)` returns its path."""
    return lambda *args, **kwargs: request.param(tmp_path / "model.pt", *args, **kwargs)


def load(path):
    with open_checkpoint(path) as contents:
        return {name: np.array(tensor) for name, tensor in contents.tensors.items()}


def assert_refused(path, match=None):
    with pytest.raises(keras_cnv2.CheckpointError, match=match):
        load(path)


@contextlib.contextmanager
def cheap(megabytes=32, seconds=20):
    """Asserts that what happens in the context takes little memory and time."""
    tracemalloc.start()
    start = time.process_time()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
        assert time.process_time() - start < seconds
    finally:
        tracemalloc.stop()


class TestContents:
    @pytest.mark.parametrize("key", [None, "model", "state_dict"])
    def test_state_dict(self, write, key):
        state = call("collections.OrderedDict") + b"(" + plain("a") + tensor((4, 6)) + plain("b") + tensor((2,)) + b"u"
        state = build(state, dict_of({"_metadata": dict_of({"version": plain(1)})}))  # as `Module.state_dict` has it
        loaded = load(write(dict_of({key: state, "epoch": plain(3)}) if key else state))
        assert loaded.keys() == {"a", "b"}
        np.testing.assert_array_equal(loaded["a"], NUMBERS.reshape(4, 6))
        np.testing.assert_array_equal(loaded["b"], NUMBERS[:2])

    def test_training_checkpoint(self, write):
        state = {"exp_avg": tensor(), "step": plain(7), "betas": plain((0.9, 0.95)), "none": plain(None)}
        arguments = named("argparse.Namespace") + b")\x81" + dict_of({"lr": plain(1e-3), "resume": plain("")}) + b"b"
        optimizer = {"state": dict_of({0: dict_of(state)}), "param_groups": plain([{"lr": 0.1, "params": [0, -1]}])}
        contents = {"model": dict_of({"a": tensor()}), "optimizer": dict_of(optimizer), "args": arguments}
        assert load(write(dict_of({**contents, "epoch": plain(2**40), "big": plain(-5)}))).keys() == {"a"}

    def test_set(self, write):
        arguments = named("argparse.Namespace") + b")\x81" + dict_of({"gpus": plain({0, 1})}) + b"b"
        assert load(write(dict_of({"model": dict_of({"a": tensor()}), "args": arguments}))).keys() == {"a"}

    def test_parameter(self, write):
        parameter = call("torch._utils._rebuild_parameter", tensor(), plain(True), call("collections.OrderedDict"))
        np.testing.assert_array_equal(load(write(dict_of({"a": parameter})))["a"], NUMBERS)

    def test_protocol_4(self, tmp_path):
        def text(string):
            return b"\x8c" + bytes([len(string)]) + string.encode()

        kind = text("torch") + text("FloatStorage") + b"\x93"
        stored = tuple_of(text("storage"), kind, text("0") + b"\x94", text("cpu"), plain(24)) + b"Q"
        function = text("torch._utils") + text("_rebuild_tensor_v2") + b"\x93"
        arguments = tuple_of(stored, b"K\x00", b"K\x18\x85", b"K\x01\x85", b"\x89", b"}")
        contents = b"\x80\x04\x95" + bytes(8) + b"}" + text("a") + function + arguments + b"Rs"
        path = write_zip(tmp_path / "model.pt", contents)
        np.testing.assert_array_equal(load(path)["a"], NUMBERS)

    @pytest.mark.parametrize(
        ("kind", "dtype"),
        [
            ("DoubleStorage", "float64"),
            ("FloatStorage", "float32"),
            ("HalfStorage", "float16"),
            ("BFloat16Storage", ml_dtypes.bfloat16),
            ("LongStorage", "int64"),
            ("ByteStorage", "uint8"),
            ("BoolStorage", "bool"),
        ],
    )
    def test_dtypes(self, write, kind, dtype):
        numbers = (np.arange(6) % 5).astype(dtype)
        loaded = load(write(dict_of({"a": tensor((2, 3), stored=storage("0", 6, kind))}), {"0": numbers}))
        assert loaded["a"].dtype == dtype
        np.testing.assert_array_equal(loaded["a"], numbers.reshape(2, 3))

    def test_views(self, write):
        views = {
            "transposed": tensor((6, 4), (1, 6)),
            "strided": tensor((3,), (8,), 1),
            "offset": tensor((2, 3), offset=18),
            "expanded": tensor((2, 3), (0, 1), 4),
            "scalar": tensor((), offset=23),
            "none": tensor((0, 3)),
            "size": tensor(stored=storage("1", 24)),
        }
        loaded = load(write(dict_of(views), {"0": NUMBERS, "1": -NUMBERS}))
        np.testing.assert_array_equal(loaded["transposed"], NUMBERS.reshape(4, 6).T)
        np.testing.assert_array_equal(loaded["strided"], [1, 9, 17])
        np.testing.assert_array_equal(loaded["offset"], NUMBERS[18:].reshape(2, 3))
        np.testing.assert_array_equal(loaded["expanded"], [[4, 5, 6], [4, 5, 6]])
        assert loaded["scalar"].shape == ()
        assert loaded["scalar"] == 23
        assert loaded["none"].shape == (0, 3)
        np.testing.assert_array_equal(loaded["size"], -NUMBERS)

    def test_shape_as_torch_size(self, write):
        size = call("torch.Size", plain((4, 6)))
        parts = storage(), plain(0), size, plain((6, 1)), plain(False), b"}"
        loaded = load(write(dict_of({"a": call("torch._utils._rebuild_tensor_v2", *parts)})))
        np.testing.assert_array_equal(loaded["a"], NUMBERS.reshape(4, 6))

    @pytest.mark.parametrize("value", [[1, 2], {"model": 3}, {"model": [], "a": 1}, {"a": "text"}, "text", None])
    def test_no_state_dict(self, write, value):
        assert_refused(write(plain(value), {}), "the file holds no state dict")

    def test_names_that_are_no_strings(self, write):
        assert_refused(write(dict_of({1: tensor()})), "the file holds no state dict.*Received: \\[1\\]")

    @pytest.mark.parametrize("name", ["official_dense.pt", "official_dense_legacy.pt", "official_training.pt"])
    def test_samples(self, name):
        loaded = load(FILES / name)
        assert len(loaded) == 4 + 3 * 4 + 5 * 10 + 4
        assert loaded["stages.2.1.grn.gamma"].shape == (1, 1, 1, 4 * SMALL["dims"][2])


REFUSED = {
    "posix.system": plain("touch PWNED"),
    "nt.system": plain("touch PWNED"),
    "os.system": plain("touch PWNED"),
    "subprocess.Popen": plain(["touch", "PWNED"]),
    "builtins.eval": plain("open('PWNED', 'w')"),
    "builtins.exec": plain("open('PWNED', 'w')"),
    "builtins.open": plain("PWNED") + plain("w"),
    "__builtin__.eval": plain("open('PWNED', 'w')"),
    "builtins.getattr": named("collections.OrderedDict") + plain("__init__"),
    "functools.partial": named("collections.OrderedDict"),
    "operator.attrgetter": plain("__class__"),
    "numpy.core.multiarray.scalar": plain(1),
    "numpy._core.multiarray._reconstruct": plain(1),
    "torch.load": plain("other.pt"),
    "torch.hub.load": plain("owner/repository"),
    "torch.jit.load": plain("other.pt"),
    "torch._utils._rebuild_tensor": plain(1),
    "torch.storage._load_from_bytes": plain(b"".decode()),
    "torch.DoubleStorageX": plain(1),
    "keras_cnv2.checkpoints.read_torch.open_torch": plain("other.pt"),
    "collections.OrderedDict.fromkeys": plain("abc"),
    "argparse.ArgumentParser": plain("x"),
}


class TestRefusedNames:
    """None of them may run. Each is in the error, so that a user sees what the file wants."""

    @pytest.fixture(autouse=True)
    def nothing_happens(self, tmp_path, monkeypatch):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        yield
        assert [*(tmp_path / "here").iterdir()] == []

    @pytest.mark.parametrize("name", REFUSED)
    def test_called(self, write, name):
        contents = {"model": dict_of({"a": tensor()}), "x": call(name, REFUSED[name])}
        assert_refused(write(dict_of(contents)), f"the file asks for {name}, which no checkpoint needs")

    def test_malicious_sample_as_legacy_file(self, tmp_path):
        with zipfile.ZipFile(FILES / "malicious.pt") as archive:
            contents = archive.read("malicious/data.pkl")
        assert b"touch PWNED" in contents  # the command that it would run here
        assert_refused(write_legacy(tmp_path / "model.pt", contents[2:-1], {}), "posix.system")

    def test_malicious_sample(self):
        assert_refused(FILES / "malicious.pt", "posix.system")

    def test_named_but_not_called(self, write):
        assert_refused(write(dict_of({"model": dict_of({"a": tensor()}), "x": named("posix.system")})), "posix.system")

    def test_made_of_two_strings(self, write):
        stack_global = plain("posix") + plain("system") + b"\x93"
        assert_refused(write(stack_global + tuple_of(plain("touch PWNED")) + b"R"), "posix.system")

    def test_made_of_other_things(self, write):
        assert_refused(write(plain([]) + plain({}) + b"\x93"), "a name is no string")

    @pytest.mark.parametrize("start", range(3))
    def test_in_the_other_pickles_of_a_legacy_file(self, tmp_path, start):
        good = [pickle.dumps(value, 2) for value in (read_torch.LEGACY_MAGIC, 1001, {"little_endian": True})]
        evil = b"\x80\x02" + call("posix.system", plain("touch PWNED")) + b"."
        (tmp_path / "model.pt").write_bytes(b"".join(good[:start]) + evil)
        assert_refused(tmp_path / "model.pt", "posix.system")

    def test_in_the_list_of_storages(self, tmp_path):
        path = write_legacy(tmp_path / "model.pt", dict_of({"a": tensor()}))
        keys = pickle.dumps(["0"], 2)
        path.write_bytes(
            path.read_bytes().replace(keys, b"\x80\x02" + call("posix.system", plain("touch PWNED")) + b".")
        )
        assert_refused(path, "posix.system")

    @pytest.mark.parametrize(
        ("instruction", "contents"),
        [
            ("INST", b"(" + plain("touch PWNED") + b"iposix\nsystem\n"),
            ("OBJ", b"(" + named("collections.OrderedDict") + b"o"),
            ("NEWOBJ_EX", named("collections.OrderedDict") + b")}\x92"),
            ("EXT1", b"\x82\x01"),
            ("PERSID", b"Pposix\n"),
            ("NEXT_BUFFER", b"\x97"),
            ("FROZENSET", b"(\x91"),
            ("DUP", b"N2"),
        ],
    )
    def test_instructions_that_no_checkpoint_has(self, write, instruction, contents):
        assert_refused(write(contents), f"unknown instruction {instruction}")

    def test_torchscript(self, tmp_path):
        path = write_zip(tmp_path / "model.pt", call("__torch__.torchvision.ConvNeXt") + b"}b")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("model/code/__torch__/torchvision.py", "class ConvNeXt(Module):\n  pass\n")
            archive.writestr("model/constants.pkl", b"\x80\x02).")
        assert_refused(path, "the file asks for __torch__.torchvision.ConvNeXt")


STATES = {
    "attributes": dict_of({"polluted": plain(1), "__name__": plain("x")}),
    "slots": tuple_of(plain(None), dict_of({"polluted": plain(1), "__name__": plain("x"), "shape": plain((1,))})),
    "both": tuple_of(dict_of({"_read": named("collections.OrderedDict")}), dict_of({"dtype": plain("int8")})),
}

TARGETS = {
    "Namespace": named("argparse.Namespace"),
    "a Namespace": named("argparse.Namespace") + b")\x81",
    "OrderedDict": named("collections.OrderedDict"),
    "Size": named("torch.Size"),
    "FloatStorage": named("torch.FloatStorage"),
    "rebuild_tensor": named("torch._utils._rebuild_tensor_v2"),
    "rebuild_parameter": named("torch._utils._rebuild_parameter"),
    "a storage": storage(),
    "a tensor": tensor(),
}


class TestPollution:
    """What a pickle does to what it got from us must end with it."""

    @pytest.mark.parametrize("state", STATES)
    @pytest.mark.parametrize("target", TARGETS)
    def test_nothing_of_this_process_changes(self, write, target, state):
        things = [argparse.Namespace, dict, tuple, np.dtype, read_torch.Storage, read_torch.LazyArray]
        things += [value for value in vars(read_torch).values() if isinstance(value, types.FunctionType)]
        things += [value for value in vars(read_pickle).values() if isinstance(value, types.FunctionType)]
        before = [{**vars(thing)} for thing in things]
        path = write(dict_of({"model": dict_of({"a": tensor()}), "x": build(TARGETS[target], STATES[state])}))
        np.testing.assert_array_equal(load(path)["a"], NUMBERS)
        assert [{**vars(thing)} for thing in things] == before
        assert np.dtype("float32").name == "float32"

    @pytest.mark.parametrize("state", STATES)
    def test_a_tensor_stays_what_it_is(self, write, state):
        loaded = load(write(dict_of({"a": build(tensor((4, 6)), STATES[state])})))
        np.testing.assert_array_equal(loaded["a"], NUMBERS.reshape(4, 6))

    def test_tables_are_not_reachable(self, write):
        """A file cannot put anything into the dict that the next file reads from."""
        evil = call("collections.OrderedDict") + plain("a") + plain("b") + b"s"
        load(write(dict_of({"model": dict_of({"a": tensor()}), "x": evil})))
        assert load(write(call("collections.OrderedDict"), {})) == {}


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
        assert_refused(write_legacy(tmp_path / "model.pt", contents, storages), "other storages than its tensors")

    def test_storages_with_names_that_are_no_strings(self, tmp_path):
        path = write_legacy(tmp_path / "model.pt", dict_of({"a": tensor()}))
        path.write_bytes(path.read_bytes().replace(pickle.dumps(["0"], 2), pickle.dumps([("0",)], 2)))
        assert_refused(path, "other storages than its tensors")


def nested_tuples(levels):
    """2 ** levels tuples, in a few bytes."""
    return b")" + b"q\x00h\x00\x86" * levels


class TestBombs:
    """Small files that claim much: an error, quickly and in little memory."""

    def test_compressed_pickle(self, tmp_path):
        archive = zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED)
        with archive, archive.open("model/data.pkl", "w") as entry:
            for _ in range(1024):
                entry.write(bytes(1 << 20))
        assert (tmp_path / "model.pt").stat().st_size < 2 << 20
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


class TestDamage:
    def test_big_endian_zip(self, tmp_path):
        path = write_zip(tmp_path / "model.pt", dict_of({"a": tensor()}), byteorder=b"big")
        assert_refused(path, "big-endian machine. Save it anew")

    def test_big_endian_legacy(self, tmp_path):
        path = write_legacy(tmp_path / "model.pt", dict_of({"a": tensor()}), little_endian=False)
        assert_refused(path, "big-endian machine. Save it anew")

    @pytest.mark.parametrize("part", [NUMBERS.tobytes(), b"_rebuild_tensor_v2"])
    def test_wrong_checksum(self, tmp_path, part):
        path = write_zip(tmp_path / "model.pt", dict_of({"a": tensor()}))
        content = path.read_bytes()
        start = content.index(part)
        path.write_bytes(content[:start] + bytes([content[start] ^ 1]) + content[start + 1 :])
        assert_refused(path, "Bad CRC-32")

    @pytest.mark.parametrize("name", ["official_dense.pt", "official_dense_legacy.pt"])
    def test_truncated(self, tmp_path, name):
        content, path = (FILES / name).read_bytes(), tmp_path / "model.pt"
        around_the_pickles = range(0, 12_000, 977)
        for length in [*range(40), *around_the_pickles, *range(12_000, len(content), 14_983), len(content) - 1]:
            path.write_bytes(content[:length])
            assert_refused(path)

    @pytest.mark.parametrize("content", [b"", b"\x80", b"not weights, but words\n" * 100, bytes(10_000), b"(" * 10_000])
    @pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
    def test_something_else(self, tmp_path, content, suffix):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(content)
        assert_refused(path, "damaged, cut off or not of the kind")

    def test_other_zip_archives(self, tmp_path):
        for names in ([], ["readme.txt"], ["a/data.pkl", "b/data.pkl"]):
            with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
                for name in names:
                    archive.writestr(name, b"\x80\x02}.")
            assert_refused(tmp_path / "model.pt", "damaged, cut off or not of the kind")

    def test_directory(self, tmp_path):
        (tmp_path / "model.pt").mkdir()
        with pytest.raises(FileNotFoundError, match="no weights file"):
            load(tmp_path / "model.pt")

    @pytest.mark.parametrize(
        ("source", "name"), [("timm_linear.safetensors", "a.pt"), ("official_dense.pt", "a.safetensors")]
    )
    def test_other_kind_than_the_name_says(self, tmp_path, source, name):
        shutil.copy(FILES / source, tmp_path / name)
        assert_refused(tmp_path / name, "damaged, cut off or not of the kind")


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_writes(tmp_path, legacy, protocol):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LayerNorm(4), torch.nn.Conv2d(1, 2, 3)).to(
        torch.bfloat16
    )
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95))
    sum(parameter.float().square().sum() for parameter in model.parameters()).backward()
    optimizer.step()
    flat = torch.arange(24.0)
    tensors = {
        **model.state_dict(),
        "parameter": torch.nn.Parameter(flat.clone()),
        "transposed": flat.view(4, 6).T,
        "last": flat.half()[20:],
        "scalar": torch.tensor(3.0, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
    }
    contents = {"optimizer": optimizer.state_dict(), "args": argparse.Namespace(lr=1e-3, betas=(0.9, 0.95)), "epoch": 1}
    torch.save(
        {"model": tensors, **contents},
        tmp_path / "model.pt",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    loaded = load(tmp_path / "model.pt")
    assert loaded.keys() == tensors.keys()
    for name, expected in tensors.items():
        assert str(expected.dtype) == f"torch.{loaded[name].dtype}"
        np.testing.assert_array_equal(np.float64(loaded[name]), expected.detach().double().numpy())


def test_the_limit_of_pickles_has_room():
    """The longest pickle of all: FCMAE with the largest encoder, and AdamW's two moments and step of each weight."""
    with zipfile.ZipFile(FILES / "official_training.pt") as archive:
        bytes_a_tensor = archive.getinfo("official_training/data.pkl").file_size / len(
            load(FILES / "official_training.pt")
        )
    blocks, weights_a_block, others = 3 + 3 + 27 + 3 + 1, 10, 20
    assert 4 * bytes_a_tensor * (blocks * weights_a_block + others) < read_pickle.LIMIT / 20
