"""Writes the HTML page, which needs no other file and no network."""

import base64
import html
import io
import logging
from pathlib import Path

from PIL import Image

from . import curves, read

logger = logging.getLogger(__name__)

STYLE = Path(__file__).with_name("style.css")
# Metrics for which more is better, and those for which less is better.
MORE = {"top1", "top5", "accuracy", "mean_iou", "pixel_accuracy", "mean_accuracy", "AP", "AP50", "AP75"}
MORE |= {"APS", "APM", "APL", "AR100", "mean_iou_multi_scale", "pixel_accuracy_multi_scale"}
MORE |= {f"mask_{name}" for name in ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR100")}
LESS = {"loss"}
FRACTIONS = MORE
# Maximum number of classes in the table of classes; a longer one would not be readable.
MAX_CLASSES = 100
# Maximum width and height of pictures in pixels, and WebP quality. They keep a page at a few megabytes.
WIDEST, TALLEST, QUALITY = 1400, 8000, 85


def page(runs):
    """Returns the page about some runs.

    Args:
        runs: List of `training.reports.read.Run`.

    Returns:
        HTML, a string.
    """
    title = ", ".join(run.name for run in runs)
    sections = [
        _section("Figures", _figures(runs)),
        _section("Curves", _curves(runs)),
        *(_section(f"Pictures of {run.name}" if len(runs) > 1 else "Pictures", _pictures(run)) for run in runs),
        _section("Classes", _classes(runs, [run.classes for run in runs])),
        _section("Masks of classes", _classes(runs, [run.mask_classes for run in runs])),
        _section("Configuration", _settings(runs, "config")),
        _section("System", _settings(runs, "system")),
    ]
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style></head>\n"
        f"<body>\n<h1>{_text(title)}</h1>\n{''.join(sections)}</body></html>\n"
    )


def _section(title, content):
    return f"<section>\n<h2>{_text(title)}</h2>\n{content}</section>\n" if content else ""


def _figures(runs):
    names = dict.fromkeys(name for run in runs for name, value in run.metrics.items() if read.is_number(value))
    rows = [(name.replace("_", " "), [run.metrics.get(name) for run in runs], name) for name in names]
    unfinished = [run.name for run in runs if not run.metrics]
    told = f"<p>Not finished: {_text(', '.join(unfinished))}.</p>\n" if unfinished else ""
    return told + (_table(runs, [_number_row(*row) for row in rows]) if rows else "")


def _number_row(label, values, name):
    known = [value for value in values if read.is_number(value)]
    best = (max(known) if name in MORE else min(known)) if len(known) > 1 and name in MORE | LESS else None
    cells = [(_shown(value, name), ' class="best"' if value is not None and value == best else "") for value in values]
    return label, cells


def _shown(value, name=""):
    if not read.is_number(value):
        return "" if value is None else str(value)
    if name in FRACTIONS:
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _curves(runs):
    panels, names = curves.panels_of(runs), [run.name for run in runs]
    drawn = (f'<div class="card">{curves.draw(label, lines, names)}</div>\n' for label, lines in panels.items())
    return f'<div class="grid">\n{"".join(drawn)}</div>\n' if panels else ""


def _pictures(run):
    series = "".join(_picture(path, f"Reconstructions, {path.stem.replace('-', ' ')}") for path in run.series)
    figures = (
        _picture(path, caption)
        for caption, path in run.pictures.items()
        if not (series and caption == "Reconstructions")
    )
    shown = "".join(f'<div class="card">{figure}</div>\n' for figure in figures if figure)
    shown = f'<div class="grid">\n{shown}</div>\n' if shown else ""
    return f'<div class="card series">{series}</div>\n{shown}' if series else shown


def _picture(path, caption):
    """Returns a picture as HTML; for a damaged one, logs a warning and returns an empty string."""
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except Exception as error:  # Pillow raises many kinds for damaged files
        logger.warning("%s is damaged and left out (%s)", path, error)
        return ""
    picture.thumbnail((WIDEST, TALLEST))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    source = f'src="data:image/webp;base64,{data}"'
    return f'<figure><figcaption>{_text(caption)}</figcaption><img {size} alt="{_text(caption)}" {source}></figure>'


def _classes(runs, scores):
    """Returns a table of the scores of classes: a dict for each run."""
    names = [*dict.fromkeys(name for classes in scores for name in classes)]
    if not names or len(names) > MAX_CLASSES:
        return ""
    # A class without pictures has no value.
    rows = [_number_row(name, [classes.get(name) for classes in scores], "accuracy") for name in names]
    return _table(runs, rows)


def _settings(runs, which):
    """Returns two tables: the settings that differ between the runs, and the rest."""
    settings = [getattr(run, which) for run in runs]
    names = [*dict.fromkeys(name for setting in settings for name in setting)]
    different = [name for name in names if any(s.get(name) != settings[0].get(name) for s in settings)]

    def table(chosen, shown):
        rows = [(name, [(_value(s.get(name)), ' class="text"') for s in shown]) for name in chosen]
        return _table(runs if shown is settings else None, rows)

    same = [name for name in names if name not in different]
    if len(runs) == 1:
        return f"<details><summary>all</summary>\n{table(same, settings[:1])}</details>\n" if same else ""
    first = table(different, settings) if different else "<p>The same for all.</p>\n"
    rest = f"<details><summary>the same for all</summary>\n{table(same, settings[:1])}</details>\n" if same else ""
    return first + rest


def _value(value):
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def _table(runs, rows):
    """Returns a table with a row for each `(label, [(text, attributes), ...])` and a column for each run."""
    head = "".join(f"<th>{_text(run.name)}</th>" for run in runs or [])
    head = f"<thead><tr><th></th>{head}</tr></thead>" if head else ""
    body = "".join(f"<tr><th>{_text(label)}</th>{''.join(map(_cell, cells))}</tr>\n" for label, cells in rows)
    return f'<div class="card wide"><table>{head}<tbody>\n{body}</tbody></table></div>\n'


def _cell(cell):
    text, attributes = cell
    return f"<td{attributes}>{_text(text)}</td>"


def _text(text):
    """Escapes text for HTML. Characters that are not valid Unicode, as in some file names, become "?"."""
    return html.escape(str(text).encode(errors="replace").decode())
