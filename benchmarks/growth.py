"""Growth of time and memory with the batch, the resolution and the size of the model, on the CPU.

    python -m benchmarks.growth [--axes batch resolution size] [--rounds 3] [--out FOLDER]

At every point, all contestants have the same weights and must output the same logits. Slopes are those of a linear fit
in log-log space: slope 1 means growth proportional to the work in multiply-accumulates.
"""

import numpy as np

from benchmarks import contest, inference
from benchmarks.measure import Spread
from benchmarks.report import Results
from benchmarks.tasks import Task, multiply_accumulates

NAMES = (inference.REFERENCE, "keras_cnv2, folded", "transformers, eager")
AXES = {
    "batch": {str(batch): ("atto", batch, 224) for batch in (1, 2, 4, 8, 16, 32, 64)},
    "resolution": {str(side): ("atto", 4, side) for side in (128, 192, 256, 320, 384, 448, 512)},
    "size": {size: (size, 2, 224) for size in ("atto", "femto", "pico", "nano", "tiny", "base")},
}
WHERE = {"batch": "atto at 224", "resolution": "atto, batch 4", "size": "batch 2 at 224"}


def slope(work, values):
    """Returns the exponent with which `values` grow with the work."""
    return float(np.polyfit(np.log(work), np.log(values), 1)[0])


def curves(results, work):
    """Returns for each contestant the work, the median seconds and the peak memory, point by point.

    Args:
        results: `Results` whose cases are the points.
        work: {case: multiply-accumulates}.

    Returns:
        {contestant: (list of works, list of seconds, list of bytes)}.
    """
    found = {}
    for (case, _), turns in results.cases.items():
        for name in dict.fromkeys(turn.contestant for turn in turns):
            mine = [turn for turn in turns if turn.contestant == name]
            point = (work[case], Spread.of(turn.seconds for turn in mine).median, max(turn.peak or 0 for turn in mine))
            found.setdefault(name, []).append(point)
    return {name: tuple(map(list, zip(*points))) for name, points in found.items()}


def slopes(axis, lines):
    """Returns Markdown with the slopes of every contestant."""
    rows = [f"| against the work, by {axis} | slope of time | slope of memory |", "|---|---|---|"]
    for name, (work, seconds, peaks) in lines.items():
        memory = f"{slope(work, peaks):.2f}" if all(peaks) else ""
        rows.append(f"| {name} | {slope(work, seconds):.2f} | {memory} |")
    return "\n".join(rows)


def draw(axis, lines, labels, path):
    """Writes a plot of time and memory against the work."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for column, (what, unit) in enumerate((("time", 1e-3), ("peak memory", 1e6)), start=1):
        axes = figure.add_subplot(1, 2, column)
        for name, points in lines.items():
            work, values = np.array(points[0]) / 1e9, np.array(points[column]) / unit
            if values.all():
                axes.loglog(work, values, "o-", label=f"{name}: slope {slope(work, values):.2f}")
        axes.set_xticks(work, [f"{label}\n{x:.3g}" for label, x in zip(labels, work)], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel(f"{axis}; below, billions of multiply-accumulates")
        axes.set_ylabel("ms" if column == 1 else "MB")
        axes.set_title(f"{what} by {axis}, {WHERE[axis]}")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def measure_axis(axis, rounds):
    """Measures all points of an axis. Returns their `Results` and the work {case: multiply-accumulates}."""
    contestants = {name: inference.CONTESTANTS[name] for name in NAMES}
    results, work = Results(f"Growth with the {axis}, {WHERE[axis]}", inference.REFERENCE), {}
    for label, point in AXES[axis].items():
        case, task = f"{axis} {label}", Task.of(*point)
        work[case] = multiply_accumulates(task)
        contest.run_case(results, case, contestants, task, rounds, tolerance=inference.TOLERANCE)
    return results, work


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    args = parser.parse_args(argv)

    for axis in args.axes:
        results, work = measure_axis(axis, args.rounds)
        lines = curves(results, work)
        contest.finish(results, f"growth_{axis}", args.out, slopes(axis, lines))
        if args.out:
            draw(axis, lines, AXES[axis], args.out / f"growth_{axis}.png")


if __name__ == "__main__":
    main()
