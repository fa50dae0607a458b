"""PyTorch's files, made by hand, good and evil. No PyTorch here, but for the last test."""

import argparse
import pickle
import shutil
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest

from keras_cnv2.checkpoints import read_pickle, read_torch
from tests.checkpoints.reading import assert_refused, load
from tests.checkpoints.samples import FILES, SMALL
from tests.checkpoints.torch_files import (
    NUMBERS,
    build,
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


class TestDamage:
    def test_big_endian_zip(self, tmp_path):
        path = write_zip(tmp_path / "model.pt", dict_of({"a": tensor()}), byteorder=b"big")
        assert_refused(path, "big-endian machine. Save it again")

    def test_big_endian_legacy(self, tmp_path):
        path = write_legacy(tmp_path / "model.pt", dict_of({"a": tensor()}), little_endian=False)
        assert_refused(path, "big-endian machine. Save it again")

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
        assert_refused(path, "damaged, incomplete or not of the type")

    def test_other_zip_archives(self, tmp_path):
        for names in ([], ["readme.txt"], ["a/data.pkl", "b/data.pkl"]):
            with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
                for name in names:
                    archive.writestr(name, b"\x80\x02}.")
            assert_refused(tmp_path / "model.pt", "damaged, incomplete or not of the type")

    def test_directory(self, tmp_path):
        (tmp_path / "model.pt").mkdir()
        with pytest.raises(FileNotFoundError, match="no weights file"):
            load(tmp_path / "model.pt")

    @pytest.mark.parametrize(
        ("source", "name"), [("timm_linear.safetensors", "a.pt"), ("official_dense.pt", "a.safetensors")]
    )
    def test_other_kind_than_the_name_says(self, tmp_path, source, name):
        shutil.copy(FILES / source, tmp_path / name)
        assert_refused(tmp_path / name, "damaged, incomplete or not of the type")


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
