"""Fair timing: contestants take turns, so that other processes disturb all equally, and are compared round by round."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """The measurement of one contestant in one round.

    Args:
        contestant: Name of the contestant.
        round: Int, from 0.
        seconds: Median seconds of a call in this turn.
        peak: Peak memory in bytes, if it can be measured.
        others: Share of the CPU time that all other processes used meanwhile, if it can be measured.
    """

    contestant: str
    round: int
    seconds: float
    peak: int | None = None
    others: float | None = None


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of the values of some rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values):
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))


def rotated(contestants, number):
    """Returns the dict in another order in every round, so that no contestant always comes first."""
    names = list(contestants)
    first = number % len(names)
    return {name: contestants[name] for name in names[first:] + names[:first]}


def take_turns(contestants, rounds):
    """Yields a `Turn` of every contestant in every round.

    Args:
        contestants: {name: function that returns the fields of a `Turn` from `seconds` on}.
        rounds: Int.
    """
    for number in range(rounds):
        for name, turn in rotated(contestants, number).items():
            yield Turn(name, number, *turn())


def ratios(turns, name, reference):
    """Returns the `Spread`, over all rounds, of the ratio of the times of `name` and `reference`."""
    seconds = {(turn.contestant, turn.round): turn.seconds for turn in turns}
    rounds = sorted({turn.round for turn in turns})
    return Spread.of(seconds[name, number] / seconds[reference, number] for number in rounds)
