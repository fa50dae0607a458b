import os

import pytest

from keras_cnv2.images.folders import LeftOut, pictures_below


def found(folder, **options):
    left_out = LeftOut()
    names = [os.path.relpath(path, folder) for path in pictures_below(folder, left_out, **options)]
    return names, left_out


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_suffixes(tmp_path):
    taken = ["a/1.JPG", "a/2.jfif", "a/3.JPE", "b.jpeg", "c.PNG", "d.WebP"]
    write(tmp_path, *taken, "e.tif", "f.TIF", "a/g.heic", "README", ".hidden.jpg", ".folder/x.jpg")
    names, left_out = found(tmp_path)
    assert names == taken
    assert str(left_out) == "2 .tif, 1 without a suffix, 1 .heic"
    assert found(tmp_path, suffixes=(".png",))[0] == ["c.PNG"]


def test_nothing_left_out(tmp_path):
    write(tmp_path, "a.png")
    assert not found(tmp_path)[1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file(tmp_path):
    write(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "nothing.png").symlink_to("missing.png")
    names, left_out = found(tmp_path)
    assert names == ["a.png"]
    assert sorted(map(os.path.basename, left_out.others)) == ["itself.png", "nothing.png", "pipe.png"]
    assert "pipe.png" in str(left_out)
    assert "more" not in str(left_out)  # three are quoted
    (tmp_path / "of_itself.png").symlink_to("of_itself.png")
    assert str(found(tmp_path)[1]).endswith(" and 1 more")


class TestLinks:
    def test_followed(self, tmp_path):
        write(tmp_path, "real/a.png", "real/b.png")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "folder").symlink_to("../real")
        (tmp_path / "data" / "file.png").symlink_to("../real/a.png")
        assert found(tmp_path / "data")[0] == ["file.png", "folder/a.png", "folder/b.png"]

    def test_that_multiply(self, tmp_path):
        """Ten ways from each of thirty folders to the next: each is looked at once."""
        for number in range(30):
            write(tmp_path, f"{number}/{number}.png")
            for way in range(10):
                (tmp_path / str(number) / f"way{way}").symlink_to(f"../{(number + 1) % 30}")
        assert len(found(tmp_path)[0]) == 30


def test_deeper_than_python_calls(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("a.png", os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    try:
        assert len(found(tmp_path)[0]) == 1
    finally:  # Python's own rmtree, by which pytest cleans up, fails with it
        (tmp_path / "top").mkdir()
        while (tmp_path / "d" / "d").exists():
            os.rename(tmp_path / "d" / "d", tmp_path / "top" / "d")
            os.rmdir(tmp_path / "d")
            os.rename(tmp_path / "top" / "d", tmp_path / "d")
