"""What stands at a path whenever a process that writes there is killed, and what others that write there are told."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_cnv2 import files
from keras_cnv2.files import check_target, exchange, new_folder, read_file, replacing

ROOT = Path(__file__).parents[1]

# Without what the library imports: TensorFlow.
ALONE = """
import os, signal, sys, types
from pathlib import Path

package = sys.modules["keras_cnv2"] = types.ModuleType("keras_cnv2")
package.__path__ = ["keras_cnv2"]
from keras_cnv2 import files

path = Path(sys.argv[1])
"""

KILLED = """
def killing(function, last):
    def called(*arguments):
        result = function(*arguments)
        if last():
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return called

if sys.argv[2] == "exchange":
    files.exchange = killing(files.exchange, lambda: True)
else:
    files.exchange = lambda one, two: False
    steps = iter(range(int(sys.argv[2]), 0, -1))
    os.replace = killing(os.replace, lambda: next(steps) == 1)
with files.new_folder(path, overwrite=True) as folder:
    (folder / "saved_model.pb").write_bytes(b"new")
"""

WRITES = """
with (files.replacing if sys.argv[2] == "file" else files.new_folder)(path) as temporary:
    print("writing", flush=True)
    input()
    (temporary if sys.argv[2] == "file" else temporary / "saved_model.pb").write_bytes(b"other")
"""


def process(script, *arguments):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", ALONE + script, *map(str, arguments)], cwd=ROOT, **pipes)


def saved_model(path, content):
    path.mkdir()
    (path / "saved_model.pb").write_bytes(content)
    return path


def content(path):
    return (path / "saved_model.pb").read_bytes()


def test_exchange(tmp_path):
    one, two = saved_model(tmp_path / "one", b"1"), saved_model(tmp_path / "two", b"2")
    assert exchange(one, two) == (sys.platform in ("linux", "darwin"))
    assert (content(one), content(two)) == ((b"2", b"1") if sys.platform in ("linux", "darwin") else (b"1", b"2"))
    assert not exchange(one, tmp_path / "nothing")


@pytest.mark.parametrize(("killed", "there"), [("exchange", b"new"), ("1", None), ("2", b"new")])
def test_killed_while_it_replaces(tmp_path, killed, there):
    """By one exchange, or by two renames, which leave nothing between them until the next call."""
    path = saved_model(tmp_path / "it", b"old")
    with process(KILLED, path, killed) as other:
        _, errors = other.communicate()
    assert other.returncode == -signal.SIGKILL, errors
    assert (content(path) if path.exists() else None) == there
    with pytest.raises(FileExistsError, match="something already"), new_folder(path):
        pass
    assert content(path) == b"new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_while_it_writes(tmp_path, kind):
    path = tmp_path / "it"
    with process(WRITES, path, kind) as other:
        assert other.stdout.readline() == b"writing\n"
        other.kill()
    assert len([*tmp_path.iterdir()]) == 1
    with (replacing if kind == "file" else new_folder)(path) as temporary:
        if kind == "file":
            temporary.write_bytes(b"mine")
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_two_processes_at_one_place(tmp_path, kind):
    """The second is told at once, and does no harm."""
    path, write = tmp_path / "it", replacing if kind == "file" else new_folder
    with process(WRITES, path, kind) as other:
        assert other.stdout.readline() == b"writing\n"
        with pytest.raises(FileExistsError, match=r"Another process is writing this.*Received: .*it"), write(path):
            pass
        with write(tmp_path / "else") as temporary:  # beside it is another place
            temporary.write_bytes(b"mine") if kind == "file" else None
        _, errors = other.communicate(b"\n")
    assert other.returncode == 0, errors
    assert (path.read_bytes() if kind == "file" else content(path)) == b"other"
    assert {found.name for found in tmp_path.iterdir()} == {"it", "else"}


@pytest.mark.skipif(files.fcntl is None, reason="Windows removes no open files")
def test_a_lock_whose_file_is_gone_is_taken_again(tmp_path, monkeypatch):
    """The process that held it removed the file, and a third one may have locked another in its place."""
    lock, taken = files.fcntl.flock, []

    def flock(file, operation):
        lock(file, operation)
        if not taken:
            (path,) = tmp_path.glob("*/lock")
            path.unlink()
            path.touch()
        taken.append(file)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with replacing(tmp_path / "it") as temporary:
        temporary.write_bytes(b"mine")
    assert len(taken) == 2
    assert [*tmp_path.iterdir()] == [tmp_path / "it"]


def test_overtaken(tmp_path):
    """By something that holds no lock."""
    path = tmp_path / "it"
    with pytest.raises(FileExistsError, match="something already"), new_folder(path):
        saved_model(path, b"another's")
    assert content(path) == b"another's"
    assert [*tmp_path.iterdir()] == [path]


def test_only_saved_models_and_empty_folders_are_overwritten(tmp_path):
    """Not any folder that was given by mistake."""
    path = tmp_path / "mine"
    path.mkdir()
    (path / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="something already"), new_folder(path, overwrite=True):
        pass
    assert (path / "thesis.txt").read_text() == "all of it"
    (path / "thesis.txt").unlink()
    with new_folder(path, overwrite=True) as folder:
        (folder / "saved_model.pb").write_bytes(b"new")
    assert content(path) == b"new"


def test_file_systems_without_locks(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with replacing(tmp_path / "it") as temporary:
        temporary.write_bytes(b"mine")
    assert [*tmp_path.iterdir()] == [tmp_path / "it"]


def test_the_old_one_stays_if_the_new_one_cannot_take_its_place(monkeypatch, tmp_path):
    path = saved_model(tmp_path / "it", b"old")
    move = os.replace

    def fails(source, to):
        if Path(source).name == "new":
            raise OSError("a moment too late")
        move(source, to)

    monkeypatch.setattr(os, "replace", fails)
    monkeypatch.setattr(files, "exchange", lambda one, two: False)
    with pytest.raises(OSError, match="too late"), new_folder(path, overwrite=True) as folder:
        (folder / "saved_model.pb").write_bytes(b"new")
    assert content(path) == b"old"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("name", ["a" * 250, "ä" * 120])
def test_long_names(tmp_path, name):
    with replacing(tmp_path / name) as temporary:
        temporary.write_bytes(b"mine")
    assert [*tmp_path.iterdir()] == [tmp_path / name]


@pytest.mark.skipif(sys.platform != "linux", reason="nobody can write there, not even root")
def test_folders_that_nothing_can_be_written_to():
    """It is said before what is to be written has been computed."""
    path = Path("/proc/it")
    for target in (check_target, lambda path: new_folder(path).__enter__()):
        with pytest.raises(PermissionError, match="Nothing can be written to this folder .* Received: /proc/it"):
            target(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_not_read(tmp_path):
    """Reading them may never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull), tmp_path):
        with pytest.raises(OSError, match="no regular file .* Received: "):
            read_file(path)


@pytest.mark.parametrize("write", [replacing, new_folder])
def test_full_disks_name_the_file(write, tmp_path):
    """The system's error, of a write to an open file, names none."""
    with pytest.raises(OSError, match=r"No space left on device: '.*model'"), write(tmp_path / "model"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, OSError), (errno.EROFS, PermissionError)])
def test_full_disks_are_no_matter_of_permissions(code, kind, tmp_path, monkeypatch):
    def fail(**kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(OSError, match="Nothing can be written to this folder") as error:
        check_target(tmp_path / "it")
    assert type(error.value) is kind
