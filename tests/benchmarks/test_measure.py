"""Turns, medians and ratios, with contestants whose times are made up."""

import pytest

from benchmarks.measure import Spread, Turn, ratios, rotated, take_turns


def test_everyone_has_a_turn_in_every_round_and_nobody_always_the_first():
    calls = []

    def contestant(name):
        return lambda: calls.append(name) or (1.0, None)

    turns = list(take_turns({name: contestant(name) for name in "abc"}, rounds=3))
    assert "".join(calls) == "abcbcacab"
    assert [(turn.contestant, turn.round) for turn in turns][:4] == [("a", 0), ("b", 0), ("c", 0), ("b", 1)]


def test_rotated_keeps_what_belongs_together():
    assert rotated({"a": 1, "b": 2}, 3) == {"b": 2, "a": 1}


def test_spread():
    assert Spread.of(iter([3, 1, 8])) == Spread(3, 1, 8)


def test_ratios_are_of_the_same_round():
    # The machine was ten times as slow in the second round: each median alone would mislead, the ratio does not.
    turns = [Turn("ours", 0, 1), Turn("theirs", 0, 2), Turn("theirs", 1, 20), Turn("ours", 1, 10), Turn("ours", 2, 1)]
    turns.append(Turn("theirs", 2, 2.5))
    assert ratios(turns, "theirs", "ours") == Spread(2, 2, 2.5)


def test_ratios_need_every_round():
    with pytest.raises(KeyError):
        ratios([Turn("ours", 0, 1), Turn("ours", 1, 1), Turn("theirs", 0, 1)], "theirs", "ours")
