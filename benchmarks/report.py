"""Writes results as CSV, one row per turn, and as a Markdown table.

python -m benchmarks.report FILE.csv ... prints the table of one or several earlier runs with equal conditions.
"""

import argparse
import csv
import datetime
import importlib.metadata
import platform
from pathlib import Path

from benchmarks.measure import Spread, Turn, ratios
from training.runs.machine import gpus, machine, output

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "tensorflow",
    "keras",
    "jax",
    "torch",
    "transformers",
    "zeromodels",
    "keras_cv_attention_models",
    "ai-edge-litert",
)
COLUMNS = ("case", "images", "contestant", "round", "seconds", "peak_bytes", "others")


def conditions():
    """Returns {name: value} of the conditions that results depend on: date, commit, machine and packages."""
    gpu = gpus()
    return {
        "date": datetime.date.today().isoformat(),
        "commit": output("git", "describe", "--always", "--dirty", "--exclude=*", folder=ROOT) or "unknown",
        "machine": machine(),
        **({"GPU": gpu} if gpu else {}),
        "Python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Results:
    """The turns of all cases of a benchmark.

    Args:
        title: Title of the table.
        reference: Name of the contestant that the others are compared with.
        conditions_: Optional dict; by default `conditions()`.
    """

    def __init__(self, title, reference, conditions_=None):
        self.title = title
        self.reference = reference
        self.conditions = conditions_ or conditions()
        self.cases = {}

    def add(self, case, images, turn):
        """Adds a `Turn` of a case. `images` is the number of images per call, or 0 if a rate has no meaning."""
        self.cases.setdefault((case, images), []).append(turn)

    def write(self, path):
        """Writes the CSV: conditions as comments, then one row per turn."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as file:
            head = {"title": self.title, "reference": self.reference, **self.conditions}
            file.writelines(f"# {name}: {value}\n" for name, value in head.items())
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for (case, images), turns in self.cases.items():
                for turn in turns:
                    others = None if turn.others is None else f"{turn.others:.3f}"
                    row = [case, images, turn.contestant, turn.round, f"{turn.seconds:.6f}", turn.peak, others]
                    writer.writerow(row)

    @classmethod
    def read(cls, *paths):
        """Reads files of `write`, from one or several runs of a benchmark under equal conditions."""
        results = None
        for path in paths:
            lines = Path(path).read_text().splitlines()
            head = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
            title, reference = head.pop("title"), head.pop("reference")
            results = results or cls(title, reference, head)
            if (results.title, results.reference, results.conditions) != (title, reference, head):
                raise ValueError(f"{path} is of another benchmark or of other conditions than {paths[0]}")
            for row in csv.DictReader(line for line in lines if not line.startswith("# ")):
                peak, others = row["peak_bytes"], row["others"]
                memory, share = int(peak) if peak else None, float(others) if others else None
                turn = Turn(row["contestant"], int(row["round"]), float(row["seconds"]), memory, share)
                results.add(row["case"], int(row["images"]), turn)
        return results

    def table(self):
        """Returns Markdown: title and conditions, then a row for every contestant of every case."""
        head = [f"{self.title}. " + ", ".join(f"{name} {value}" for name, value in self.conditions.items()), ""]
        names = f"| | ms (spread) | images/s | times {self.reference}'s time (spread) | peak memory, MB |"
        rows = [names, "|---|---|---|---|---|"]
        for (case, images), turns in self.cases.items():
            rows.append(f"| **{case}** | | | | |")
            rows += [self._row(name, images, turns) for name in dict.fromkeys(turn.contestant for turn in turns)]
        return "\n".join([*head, *rows, *self._disturbance()])

    def _disturbance(self):
        """Returns Markdown with other processes' share of the CPU: if it is large, ratios are not reliable."""
        shares = [turn.others for turns in self.cases.values() for turn in turns if turn.others is not None]
        if not shares:
            return []
        share = Spread.of(shares)
        return ["", f"Other processes had {share.median:.0%} of the CPU in the median turn, {share.high:.0%} at most."]

    def _row(self, name, images, turns):
        mine = [turn for turn in turns if turn.contestant == name]
        time = Spread.of(turn.seconds for turn in mine)
        peaks = [turn.peak for turn in mine if turn.peak is not None]
        peak = f"{max(peaks) / 1e6:.0f}" if peaks else ""
        spread = f"{time.median * 1e3:.1f} ({time.low * 1e3:.1f} to {time.high * 1e3:.1f})"
        rate = f"{images / time.median:.1f}" if images else ""
        return f"| {name} | {spread} | {rate} | {self._ratio(name, turns)} | {peak} |"

    def _ratio(self, name, turns):
        """Formats the ratio to the reference's time; an empty string if the case has no reference."""
        if name == self.reference:
            return "1"
        if self.reference not in {turn.contestant for turn in turns}:
            return ""
        ratio = ratios(turns, name, self.reference)
        return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", help="CSV of an earlier run")
    print(Results.read(*parser.parse_args(argv).files).table())


if __name__ == "__main__":
    main()
