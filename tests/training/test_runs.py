import json

import pytest

from training import runs


def test_appears_when_all_went_well(tmp_path):
    with runs.run_folder(tmp_path / "runs", "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "runs" / "a").exists()
    assert (tmp_path / "runs" / "a" / "x").read_text() == "1"
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_leaves_nothing_behind_otherwise(tmp_path, error):
    def fail():
        with runs.run_folder(tmp_path, "a") as folder:
            (folder / "x").write_text("1")
            raise error

    with pytest.raises(error):
        fail()
    assert [*tmp_path.iterdir()] == []


def test_overwrites_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    with pytest.raises(FileExistsError, match=r"another --name. Received: .*a"), runs.run_folder(tmp_path, "a"):
        pytest.fail("must not come to work")
    assert (tmp_path / "a" / "x").read_text() == "1"


def test_write_json(tmp_path):
    runs.write_json(tmp_path / "x.json", {"a": (1, 2)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_versions():
    assert {"python", "keras_cnv2", "keras", "tensorflow", "numpy"} == {*runs.versions()}
