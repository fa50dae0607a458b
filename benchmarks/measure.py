"""One idea: contestants take turns, so that a noisy neighbour disturbs all alike, and are compared round by round."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """What one contestant took in one round.

    Args:
        contestant: Its name.
        round: Int, from 0.
        seconds: Of a call, the median of the turn.
        peak: The peak of memory in bytes, if it can be measured.
        others: Which share of the CPU's time all other processes had meanwhile, if it can be measured.
    """

    contestant: str
    round: int
    seconds: float
    peak: int | None = None
    others: float | None = None


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, and between which values they lay."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values):
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))


def rotated(contestants, number):
    """The dict in another order in every round, so that nobody always comes first."""
    names = list(contestants)
    first = number % len(names)
    return {name: contestants[name] for name in names[first:] + names[:first]}


def take_turns(contestants, rounds):
    """Yields a `Turn` of every contestant in every round.

    Args:
        contestants: {name: function that returns what a `Turn` holds after the round: seconds and so on}.
        rounds: Int.
    """
    for number in range(rounds):
        for name, turn in rotated(contestants, number).items():
            yield Turn(name, number, *turn())


def ratios(turns, name, reference):
    """`Spread` of how many times as long as `reference` the contestant `name` took, round by round."""
    seconds = {(turn.contestant, turn.round): turn.seconds for turn in turns}
    rounds = sorted({turn.round for turn in turns})
    return Spread.of(seconds[name, number] / seconds[reference, number] for number in rounds)
