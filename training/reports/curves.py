"""Draws curves of several runs as SVG with the page's text colour."""

import io
import itertools
import re

from ..drawing.figures import drawable

# Placeholder for the page's text colour, which depends on light or dark mode; replaced by "currentColor" at the end.
TEXT = "#010203"
STYLE = {
    "svg.fonttype": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), TEXT),
    "grid.color": TEXT,
}


def panels_of(runs):
    """Returns the curves to draw: a dict from metric names to lists of `(run, kind, epochs, values)`.

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
    # The learning rate comes last, as it is least interesting.
    return dict(sorted(panels.items(), key=lambda item: item[0] == "learning_rate"))


def colours():
    """Returns sixty colours for runs: ten that are easy to tell apart, ten lighter ones of the same hues, and more."""
    from matplotlib import colormaps

    first = colormaps["tab20"].colors
    return [*first[::2], *first[1::2], *colormaps["tab20b"].colors, *colormaps["tab20c"].colors]


def draw(label, curves, names):
    """Draws a panel. Returns an SVG element as text.

    Args:
        label: Label of the vertical axis.
        curves: List of curves from `panels_of`. Training curves are dashed if there are validation curves.
        names: Names of all runs. Each run has the same colour in all panels.
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
