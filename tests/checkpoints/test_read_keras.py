"""Keras's files, good and evil."""

import itertools
import json
import math
import shutil
import zipfile

import h5py
import numpy as np
import pytest

import keras_cnv2
from tests.checkpoints.reading import DAMAGED, VARS, assert_refused, cheap, load, read, write_h5
from tests.checkpoints.samples import classifier, snapshot, unchanged

pytestmark = pytest.mark.lowest

ARRAYS = {"head/0": np.arange(6, dtype="float32").reshape(2, 3), "head/1": np.ones(3, "float32")}


@pytest.fixture
def h5(tmp_path):
    """Path of a good `.weights.h5` file."""
    path = tmp_path / "model.weights.h5"
    write_h5(path, ARRAYS)
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
        assert_refused(h5, "deeper ones than any model has")

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
            assert_refused(h5, ELSEWHERE)


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
