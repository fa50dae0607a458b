"""Downloads against a hub on this machine; nothing here asks any other."""

import dataclasses
import functools
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from huggingface_hub import constants, file_download
from safetensors.numpy import save

import keras_cnv2
from keras_cnv2.checkpoints import hub
from keras_cnv2.checkpoints.read import open_checkpoint
from keras_cnv2.checkpoints.registry import find_checkpoint
from keras_cnv2.images.classes import imagenet_classes
from keras_cnv2.models import classifier
from tests.checkpoints import hub_server
from tests.checkpoints.hub_server import ALWAYS, COMMIT, HubServer
from tests.golden import rule

pytestmark = pytest.mark.lowest

ROOT = Path(__file__).parents[2]
ROW = find_checkpoint("fcmae_ft_in1k", "atto")
PLACE = (ROW.repository, ROW.file)
CONTENT = np.random.default_rng(0).bytes(300_000)
CHUNK = 1000

# Loads the published weights once for each argument, the path where it then tells what it got.
LOAD = """
import json, sys
import numpy as np
import keras_cnv2

for path in sys.argv[1:]:
    print("next load", file=sys.stderr)
    model = keras_cnv2.ConvNeXtV2Atto(weights="fcmae_ft_in1k")
    np.savez(path + ".npz", **keras_cnv2.state_dict(model))
    with open(path + ".json", "w") as file:
        json.dump([model.class_names, model.image_size, model.resize], file)
"""


def load(server, folder, *names, **variables):
    """Runs `LOAD` in a process of its own, with the variables that the hub's library reads when it is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_"))}
    variables = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "home"), "no_proxy": "127.0.0.1", **variables}
    return subprocess.run(
        [sys.executable, "-c", LOAD, *(str(folder / name) for name in names)],
        env={**kept, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )


def assert_loaded(path, tensors):
    """Asserts that a load got these weights bit for bit, and all that is known of them."""
    with np.load(f"{path}.npz") as loaded:
        assert [*loaded] == [*tensors]
        for name, tensor in tensors.items():
            assert loaded[name].dtype == tensor.dtype
            assert loaded[name].tobytes() == tensor.tobytes(), name
    class_names, image_size, resize = json.loads(Path(f"{path}.json").read_text())
    assert class_names == [*imagenet_classes()]
    assert len(class_names) == 1000
    assert (image_size, resize) == (224, "crop")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def atto():
    return keras_cnv2.ConvNeXtV2Atto()


@pytest.fixture(scope="module")
def tensors(atto):
    """Official names -> pseudo-weights."""
    return {name: rule.tensor(0, name, value.shape) for name, value in keras_cnv2.state_dict(atto).items()}


@pytest.fixture(scope="module")
def atto_server(atto, tensors):
    keras_cnv2.load_checkpoint(atto, tensors)
    with HubServer({PLACE: save(keras_cnv2.state_dict(atto, naming="timm"))}).running() as server:
        yield server


@pytest.fixture
def point_to(monkeypatch, tmp_path):
    """A function that makes a URL the hub of this process, with an empty cache in `tmp_path`."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # Smaller than the content: what arrives before a connection breaks is written in such pieces.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    # Between attempts.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    hub_server.forget_connections()
    yield functools.partial(hub_server.point_to, monkeypatch=monkeypatch)
    hub_server.forget_connections()


@pytest.mark.slow
class TestProcesses:
    """Loads in processes of their own, with the variables of the hub's library."""

    @pytest.fixture(scope="class")
    def online(self, atto_server, folder):
        """The process that loaded twice."""
        atto_server.requests.clear()
        return load(atto_server, folder, "first", "second")

    @pytest.mark.parametrize("name", ["first", "second"])
    def test_weights_and_metadata(self, online, folder, name, tensors):
        assert_loaded(folder / name, tensors)

    def test_one_download(self, online, atto_server):
        assert atto_server.ranges == [None]

    def test_licence_is_told_once_a_load(self, online):
        before, *loads = online.stderr.split("next load")
        assert ["CC BY-NC 4.0" in before, *(load.count("CC BY-NC 4.0") for load in loads)] == [False, 1, 1]

    def test_nothing_on_standard_output(self, online):
        assert online.stdout == ""

    def test_offline(self, online, atto_server, folder, tensors):
        asked = [*atto_server.requests]
        load(atto_server, folder, "offline", HF_HUB_OFFLINE="1")
        assert_loaded(folder / "offline", tensors)
        assert atto_server.requests == asked


def test_weights_argument(point_to, atto_server, tensors, caplog, capsys):
    """As `TestProcesses`, in this one: two loads are one download."""
    atto_server.requests.clear()
    point_to(atto_server.url)
    for number in range(2):
        model = keras_cnv2.ConvNeXtV2Atto(weights="fcmae_ft_in1k")
        assert caplog.text.count("CC BY-NC 4.0") == number + 1
        assert (model.class_names, model.image_size, model.resize) == (imagenet_classes(), 224, "crop")
    for name, value in keras_cnv2.state_dict(model).items():
        assert value.tobytes() == tensors[name].tobytes(), name
    assert atto_server.ranges == [None]
    assert capsys.readouterr().out == ""


@pytest.fixture
def server(point_to):
    with HubServer({PLACE: CONTENT}).running() as server:
        point_to(server.url)
        yield server


def refusal(monkeypatch):
    """The message of the one error with which the model cannot be had, before anything of it is made."""

    def made(*args):
        pytest.fail("a model without its weights")

    with monkeypatch.context() as patch:
        patch.setattr(classifier, "make_input", made)
        with pytest.raises(keras_cnv2.CheckpointError, match="Could not get the weights") as error:
            keras_cnv2.ConvNeXtV2Atto(weights=ROW.tag)
    assert not hub.is_cached(ROW)
    message = str(error.value)
    assert "\n" not in message
    for way_out in ("run it again", f"{ROW.file} of {ROW.repository}", "path", "HF_HOME", "HF_HUB_OFFLINE", "mirror"):
        assert way_out in message
    return message


def assert_downloads():
    assert not hub.is_cached(ROW)
    path = hub.download(ROW).path
    assert path.read_bytes() == CONTENT
    assert hub.is_cached(ROW)


def pieces(server):
    """How many pieces were there already at the last GET, which either resumed or began anew."""
    sent = server.ranges[-1]
    start = 0 if sent is None else int(sent.removeprefix("bytes=").removesuffix("-"))
    assert start % CHUNK == 0
    return start // CHUNK


class TestDownload:
    def test_once(self, server):
        assert_downloads()
        assert hub.download(ROW).path.read_bytes() == CONTENT
        assert server.ranges == [None]

    @pytest.mark.parametrize("fault", ["down", "strange"])
    def test_from_the_cache_while_the_hub_is_out_of_order(self, server, fault):
        path = hub.download(ROW)
        setattr(server, fault, True)
        assert hub.download(ROW) == path

    def test_from_the_cache_when_the_repository_is_gone(self, server):
        path = hub.download(ROW)
        server.files = {}
        assert hub.download(ROW) == path


class TestBrokenConnection:
    @pytest.mark.parametrize("reset", [False, True])
    def test_once(self, server, reset):
        server.broken_gets, server.break_after, server.reset = 1, 100 * CHUNK + 500, reset
        assert_downloads()
        assert server.ranges[0] is None
        assert len(server.ranges) == 2
        assert pieces(server) <= 100  # a reset throws away what was not read yet

    # The hub's library goes on for as long as it gets anything, if a connection ends in order.
    @pytest.mark.parametrize(("reset", "sent"), [(False, 0), (True, 0), (True, 40 * CHUNK + 500)])
    def test_always(self, server, monkeypatch, reset, sent):
        server.broken_gets, server.break_after, server.reset = ALWAYS, sent, reset
        assert "the download broke off" in refusal(monkeypatch)
        assert len(server.ranges) >= hub.ATTEMPTS

        server.broken_gets = 0
        server.requests.clear()
        assert_downloads()
        assert len(server.ranges) == 1
        assert pieces(server) <= sent // CHUNK * hub.ATTEMPTS

    def test_interrupt(self, server):
        def interrupt():
            threading.Event().wait(0.1)  # Till the download waits for more: elsewhere Python may drop the interrupt.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        try:
            server.broken_gets, server.break_after, server.on_break = 1, 100 * CHUNK + 500, interrupt
            with pytest.raises(KeyboardInterrupt):
                hub.download(ROW)
        finally:
            signal.signal(signal.SIGINT, before)
        assert len(server.ranges) == 1
        assert_downloads()
        assert pieces(server) in range(101)


class TestRefusal:
    def test_no_such_repository(self, server, monkeypatch):
        server.files = {}
        message = refusal(monkeypatch)
        assert "no such repository or file" in message
        assert "Repository Not Found" in message

    def test_no_such_file(self, server, monkeypatch):
        server.files = {(ROW.repository, "README.md"): b"# ConvNeXt V2"}
        message = refusal(monkeypatch)
        assert "no such repository or file" in message
        assert "Entry Not Found" in message
        assert server.ranges == []

    @pytest.mark.parametrize("status", [401, 403])
    def test_repository_that_is_not_open(self, status, server, monkeypatch):
        server.refuses = status
        message = refusal(monkeypatch)
        assert "or you have no access to it" in message
        assert str(status) in message
        assert server.ranges == []

    def test_hub_that_is_down(self, server, monkeypatch):
        server.down = True
        message = refusal(monkeypatch)
        assert "the hub cannot be reached or is out of order" in message
        assert "500" in message
        server.down = False
        assert_downloads()

    def test_not_a_hub(self, server, monkeypatch):
        server.strange = True
        message = refusal(monkeypatch)
        assert "the hub cannot be reached or is out of order" in message
        assert "Received: FileMetadataError" in message

    def test_unreachable(self, point_to, monkeypatch):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # Nobody listens, and nobody else gets the port.
            point_to(f"http://127.0.0.1:{closed.getsockname()[1]}")
            message = refusal(monkeypatch)
        assert "the hub cannot be reached or is out of order" in message
        assert "Connection refused" in message

    def test_offline(self, server, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "not in the cache, and HF_HUB_OFFLINE forbids asking" in refusal(monkeypatch)
        assert server.requests == []


class TestDisk:
    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
    def test_full(self, server, monkeypatch):
        http_get = file_download.http_get

        def to_a_full_disk(url, temp_file, **kwargs):
            with open("/dev/full", "wb") as full:
                http_get(url, full, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(file_download, "http_get", to_a_full_disk)
            assert "the disk is full" in refusal(monkeypatch)
        assert server.ranges == [None]
        assert_downloads()

    def test_no_place_for_the_cache(self, server, monkeypatch, tmp_path):
        (tmp_path / "file").touch()
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
        assert "the cache cannot be written" in refusal(monkeypatch)
        assert server.ranges == []


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def cached(folder):
    """All files of a cache but the locks."""
    files = [path for path in (folder / "cache").rglob("*") if path.is_file() or path.is_symlink()]
    return [path for path in files if ".locks" not in path.parts and path.name != "CACHEDIR.TAG"]


class TestHostileHub:
    @pytest.mark.parametrize("header", ["ETag", "X-Linked-ETag", "X-Repo-Commit"])
    @pytest.mark.parametrize("name", ["../../../planted/file", "/planted", "..", ".hidden", "a" * 200, "a\\b", "c:d"])
    def test_names_that_are_paths(self, server, monkeypatch, tmp_path, header, name):
        (tmp_path / "planted").mkdir()
        server.headers = {header: f'"{name}"' if "ETag" in header else name}
        message = refusal(monkeypatch)
        what = "commit" if header == "X-Repo-Commit" else "ETag"
        assert f"The hub names an invalid {what}: {name[:80]!r}" in message
        assert server.ranges == []
        assert cached(tmp_path) == []
        assert [*(tmp_path / "planted").iterdir()] == []
        server.headers = {}
        assert_downloads()

    def test_commit_of_a_file_that_is_missing(self, server, monkeypatch, tmp_path):
        """Under its name the hub's library notes that there is no file."""
        server.files = {(ROW.repository, "README.md"): b"# ConvNeXt V2"}
        server.headers = {"X-Repo-Commit": "../../../planted"}
        assert "The hub names an invalid commit" in refusal(monkeypatch)
        assert not (tmp_path / "planted").exists()
        assert cached(tmp_path) == []

    def test_from_the_cache_while_names_are_paths(self, server):
        path = hub.download(ROW).path
        server.headers = {"ETag": '"../../x"'}
        assert hub.download(ROW).path == path

    def test_other_bytes_than_promised(self, server, monkeypatch, tmp_path):
        good = CONTENT
        server.files[PLACE] = good[:-1] + bytes([good[-1] ^ 1])
        server.headers = {"ETag": f'"{sha256(good)}"'}
        message = refusal(monkeypatch)
        assert "the downloaded file is not the expected one" in message
        assert f"does not have the SHA-256 that the hub names, {sha256(good)}, and is removed from the cache" in message
        assert f"Received: {sha256(server.files[PLACE])}" in message
        assert [path.name for path in cached(tmp_path)] == ["main"]  # which commit it is
        server.files[PLACE] = good
        assert_downloads()

    def test_file_that_changed_in_the_cache(self, server):
        path = hub.download(ROW).path.resolve()
        path.write_bytes(b"others")
        assert hub.download(ROW).path.read_bytes() == CONTENT
        assert server.ranges == [None, None]

    def test_other_file_than_the_row_says(self, server, tmp_path):
        row = dataclasses.replace(ROW, sha256="0" * 64)
        with pytest.raises(
            keras_cnv2.CheckpointError, match=f"SHA-256 of the checkpoint, {row.sha256}, and is removed"
        ):
            hub.download(row)
        assert [path.name for path in cached(tmp_path)] == ["main"]
        assert hub.download(dataclasses.replace(ROW, sha256=sha256(CONTENT))).path.read_bytes() == CONTENT

    def test_etag_of_git(self, server):
        """That of small files is no SHA-256 of what they hold."""
        server.headers = {"ETag": '"' + "a" * 40 + '"'}
        assert hub.download(ROW) == hub.Download(hub.download(ROW).path, COMMIT, sha256(CONTENT))

    def test_cache_that_cannot_be_written(self, server, monkeypatch):
        path = hub.download(ROW).path
        path.resolve().write_bytes(b"others")

        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", refuse)
            with pytest.raises(keras_cnv2.CheckpointError, match=f"cannot be removed from the cache: {path}"):
                hub.download(ROW)

    def test_linked_file_of_others_is_left(self, server, tmp_path):
        """A cache may hold links to files elsewhere."""
        path = hub.download(ROW).path
        path.unlink()
        (tmp_path / sha256(CONTENT)).write_bytes(b"mine")
        path.symlink_to(tmp_path / sha256(CONTENT))
        assert hub.download(ROW).path.read_bytes() == CONTENT
        assert (tmp_path / sha256(CONTENT)).read_bytes() == b"mine"

    def test_hub_library_is_left_as_it_was(self, server):
        before = file_download.get_hf_file_metadata
        hub.download(ROW)
        assert file_download.get_hf_file_metadata is before


def test_revision(server, monkeypatch):
    row = find_checkpoint("fcmae_ft_in1k@v1.0", "atto")
    assert (row.revision, row.sha256) == ("v1.0", None)
    assert not hub.is_cached(row)
    assert hub.download(row).path.read_bytes() == CONTENT
    assert {request.path.split("/resolve/")[1] for request in server.requests} == {f"v1.0/{ROW.file}"}
    assert hub.is_cached(row)
    assert not hub.is_cached(ROW)


def test_what_was_loaded_is_told_and_kept(point_to, atto_server, tmp_path, caplog):
    point_to(atto_server.url)
    caplog.set_level("DEBUG", "keras_cnv2")
    model = keras_cnv2.ConvNeXtV2Atto(weights="fcmae_ft_in1k")
    digest = sha256(atto_server.files[PLACE])
    assert f"{ROW.name}: {ROW.file} of {ROW.repository} at commit {COMMIT}, SHA-256 {digest}" in caplog.messages
    expected = {"repository": ROW.repository, "file": ROW.file, "commit": COMMIT, "sha256": digest}
    assert model.pretrained == expected
    keras_cnv2.save_checkpoint(model, tmp_path / "a.safetensors")
    model.save(tmp_path / "b.keras")
    assert keras.saving.load_model(tmp_path / "b.keras").pretrained == expected
    for name in ("a.safetensors", "b.keras"):
        with open_checkpoint(tmp_path / name) as contents:
            assert contents.metadata["pretrained"] == expected
    keras_cnv2.load_checkpoint(model, keras_cnv2.state_dict(model))
    assert model.pretrained is None
