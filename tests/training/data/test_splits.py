import pytest

from training.data.splits import hold_out, hold_out_files
from training.errors import DataError

NAMES = [f"{number}.png" for number in range(26)]


@pytest.mark.parametrize(("share", "count"), [(0, 0), (0.01, 1), (0.1, 3), (0.5, 13), (0.99, 25), (1, 26)])
def test_the_share_to_the_nearest_number(share, count):
    """Neither part is empty, unless nothing or everything is held out."""
    train, held_out = hold_out(NAMES, share, seed=0)
    assert len(held_out) == count
    assert [name for name in NAMES if name in held_out] == held_out
    assert [name for name in NAMES if name not in held_out] == train


def test_another_seed_holds_out_others():
    assert hold_out(NAMES, 0.3, seed=0) == hold_out(NAMES, 0.3, seed=0)
    assert {*hold_out(NAMES, 0.3, seed=0)[1]} != {*hold_out(NAMES, 0.3, seed=1)[1]}


def test_a_new_name_changes_little():
    _, before = hold_out(NAMES, 0.5, seed=0)
    _, after = hold_out([*NAMES, "another.png"], 0.5, seed=0)
    assert len({*before} ^ {*after}) <= 2


def test_files_by_their_place_in_the_folder(tmp_path):
    """The same ones wherever the folder is."""
    one, two = ([f"{tmp_path / place}/{name}" for name in NAMES] for place in ("a", "b/c"))
    train, held_out = hold_out_files(one, tmp_path / "a", 0.3, seed=0)
    expected = [[file.replace("/a/", "/b/c/") for file in part] for part in (train, held_out)]
    assert [*hold_out_files(two, tmp_path / "b" / "c", 0.3, seed=0)] == expected


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_impossible_share(share):
    with pytest.raises(DataError, match=f"from 0 to 1. Received: {share}"):
        hold_out(NAMES, share, seed=0)
