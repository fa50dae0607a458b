import io
import logging
import os

import numpy as np
import pytest
from PIL import Image

from tests.training.data.samples import write
from tests.training.data.scenes.small import write_folder
from training.data.headers import unreadable
from training.data.images.folders import Folder
from training.data.scenes.folders import SceneFolder
from training.errors import DataError


def test_reasons(tmp_path):
    files = [write(tmp_path / f"{kind}.{kind}") for kind in ("jpg", "png", "webp", "bmp", "gif")]
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000  # more than is read at first, with the profile
    files.append(write(tmp_path / "long.jpg", exif=exif, icc_profile=bytes(100_000)))
    bad = {
        "empty.png": b"",
        "text.jpg": b"not a picture",
        "damaged.jpg": b"\xff\xd8\xff" + bytes(100),
        "nothing.png": files[1].read_bytes()[:16] + bytes(8),
    }
    for name, contents in bad.items():
        (tmp_path / name).write_bytes(contents)
    os.mkfifo(tmp_path / "pipe.png")
    large = io.BytesIO()
    Image.new("1", (9000, 9000)).save(large, "png")
    (tmp_path / "large.png").write_bytes(large.getvalue()[:100])
    names = [*bad, "pipe.png", "gone.png", "large.png"]
    found = unreadable([*map(str, files), *(str(tmp_path / name) for name in names)], 50_000_000)
    no_picture = "no JPEG, PNG, BMP, WebP or GIF picture, or a damaged one"
    reasons = [*[no_picture] * 4, "no regular file", "No such file or directory"]
    reasons.append("9000 x 9000 pixels are more than --max-pixels 50000000")
    assert found == dict(enumerate(reasons, len(files)))


def test_remembered_until_they_change(folder, tmp_path, monkeypatch):
    files = [*map(str, sorted(folder.rglob("*.jpg")))]
    os.utime(files[3], ns=(0, 10**18))
    looked = []
    monkeypatch.setattr("training.data.headers.fault_of", lambda file, max_pixels: looked.append(file))
    for expected in (files, []):
        looked.clear()
        assert unreadable(files, 10**6, tmp_path / "runs") == {}
        assert sorted(looked) == expected
    os.utime(files[3], ns=(0, 10**18 + 1000))  # within the same second
    unreadable(files, 10**6, tmp_path / "runs")
    assert looked == files[3:4]
    unreadable(files, 10**5, tmp_path / "runs")
    assert sorted(looked[1:]) == files
    (memory,) = (tmp_path / "runs").iterdir()
    memory.write_bytes(b"damaged")
    assert unreadable(files, 10**6, tmp_path / "runs") == {}
    assert np.load(memory).shape == (10,)


def test_no_longer_than_allowed(folder, caplog):
    (folder / "train" / "a" / "0.jpg").write_bytes(b"")
    assert unreadable([*map(str, folder.rglob("*.jpg"))], 10**6, seconds=-1) == {}
    assert "0 of 10 files were checked" in caplog.text


def test_named_before_a_run_begins(folder, caplog):
    (folder / "val" / "a" / "0.png").write_bytes(b"")
    Folder(folder).look()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    expected = f"Left out, as it cannot be read: {folder}/val/a/0.png: no JPEG, PNG, BMP, WebP or GIF picture"
    assert record.getMessage().startswith(expected)


def test_too_many(folder):
    for path in [*folder.rglob("*.jpg"), folder / "val" / "a" / "0.png"]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"11 pictures of 13 cannot be read.*Received: --max-unreadable 0.01"):
        Folder(folder).look()
    Folder(folder, max_unreadable=0.9).look()


def test_labels_of_scenes(tmp_path, caplog):
    write_folder(tmp_path)
    source = SceneFolder(tmp_path, classes=3)
    (picture, *_), (labels, *_) = source.rows.files.numpy(), source.rows.label_files.numpy()
    with open(labels, "wb"):
        pass
    source.look()
    expected = f"read: {os.fsdecode(picture)}: its labels {os.fsdecode(labels)}: no JPEG"
    assert expected in caplog.text
    assert len(caplog.records) == 1
