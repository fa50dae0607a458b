"""Curves of several runs as SVG that takes the page's colours."""

import io
import itertools
import re

from ..drawing.figures import drawable

# Stands for the page's text colour, light or dark, which matplotlib cannot know.
TEXT = "#010203"
STYLE = {
    "svg.fonttype": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), TEXT),
    "grid.color": TEXT,
}


def panels_of(runs):
    """What is drawn: a dict from the names of figures to curves, `(run, kind, epochs, values)` each.

    Args:
        runs: List of `training.reports.read.Run`.
    """
    panels = {}
    for run in runs:
        for key in dict.fromkeys(key for row in run.history for key in row):
            if key in ("epoch", "step", "seconds", "images_per_second"):
                continue
            points = [(row["epoch"], row[key]) for row in run.history if row.get(key) is not None]
            if points:
                kind = "validation" if key.startswith("val_") else "training"
                panels.setdefault(key.removeprefix("val_"), []).append((run.name, kind, *zip(*points)))
    # What falls last of all is of least interest.
    return dict(sorted(panels.items(), key=lambda item: item[0] == "learning_rate"))


def colours():
    """The sixty colours of runs: the ten that are easiest to tell apart, the same lighter, and others."""
    from matplotlib import colormaps

    first = colormaps["tab20"].colors
    return [*first[::2], *first[1::2], *colormaps["tab20b"].colors, *colormaps["tab20c"].colors]


def draw(label, curves, names):
    """A panel as the text of an SVG element.

    Args:
        label: What is on the vertical axis.
        curves: As `panels_of` has them. Training is dashed where there is validation.
        names: Those of all runs, each of which has one colour in all panels.
    """
    import matplotlib
    from matplotlib.figure import Figure

    colour_of = dict(zip(names, itertools.cycle(colours())))
    has_both = {kind for _, kind, *_ in curves} == {"training", "validation"}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": label}):
        figure = Figure(figsize=(5, 3.6), layout="constrained", facecolor="none")
        axes = figure.subplots()
        axes.set_facecolor("none")
        for name, kind, epochs, values in curves:
            dashed = has_both and kind == "training"
            parts = [*([drawable(name)] if len(names) > 1 else []), *([kind] if has_both or len(names) == 1 else [])]
            axes.plot(
                epochs,
                values,
                color=colour_of[name],
                linestyle="--" if dashed else "-",
                marker="." if len(epochs) < 30 else "",
                label=", ".join(parts),
            )
        axes.set(xlabel="epoch", ylabel=label.replace("_", " "))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.2)
        axes.legend(framealpha=0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg[svg.index("<svg") :], count=1)
    return svg.replace(TEXT, "currentColor")
