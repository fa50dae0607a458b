import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from training.commands import report
from training.errors import RunError
from training.reports import curves, page, read

HISTORY = [
    {"epoch": 1, "step": 3, "loss": 2.0, "val_loss": 2.5, "learning_rate": 0.1, "seconds": 9.0},
    {"epoch": 2, "step": 6, "loss": 1.0, "val_loss": 1.5, "learning_rate": 0.0, "seconds": 9.0},
]
METRICS = {"top1": 0.75, "loss": 1.0, "parameters": 12345, "classes": {"<b>": 0.5, "cat": None}}


def write_run(folder, metrics=METRICS, pictures=("confusion_matrix.png",), **config):
    folder.mkdir(parents=True)
    config = {"kind": "Finetuning", "model": "atto", "betas": [0.9, 0.95], **config}
    (folder / "config.json").write_text(json.dumps({**config, "versions": {"keras": "3.1"}, "system": {"GPU": "H"}}))
    (folder / "log.json").write_text(json.dumps(HISTORY))
    if metrics:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    for name in pictures:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 3000, 3), 200, "uint8")).save(folder / name)
    return folder


class Page(HTMLParser):
    """What a page holds: tables as rows of texts with their classes, pictures, headings; and whether tags match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.images, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append(["", attributes.get("class")])
        elif tag == "img":
            self.images.append(attributes)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        pass  # of SVG

    def handle_data(self, data):
        self.texts.append(data)
        if "tr" in self.open:
            self.rows[-1][-1][0] += data

    def row(self, label):
        return next([tuple(cell) for cell in row[1:]] for row in self.rows if row and row[0][0] == label)


def page_of(*folders):
    return Page(report.run(folders).read_text())


def test_one_run(tmp_path):
    page = page_of(write_run(tmp_path / "a"))
    assert page.row("top1") == [("75.00%", None)]
    assert page.row("parameters") == [("12,345", None)]
    assert page.row("<b>") == [("50.00%", None)]
    assert page.row("cat") == [("", None)]
    assert page.row("betas") == [("0.9, 0.95", "text")]
    assert page.row("keras") == [("3.1", "text")]
    assert page.row("GPU") == [("H", "text")]
    assert {"Figures", "Curves", "Pictures", "Classes", "Configuration", "System"} <= {*page.texts}
    assert [image["alt"] for image in page.images] == ["Confusion matrix"]


def test_runs_side_by_side(tmp_path):
    for name, top1, loss in (("a", 0.75, 1.0), ("b", 0.8, 1.2)):
        write_run(tmp_path / "all" / name, {**METRICS, "top1": top1, "loss": loss}, lr=top1)
    write_run(tmp_path / "all" / "c", {})
    page = page_of(tmp_path / "all")
    assert page.row("top1") == [("75.00%", None), ("80.00%", "best"), ("", None)]
    assert page.row("loss") == [("1", "best"), ("1.2", None), ("", None)]
    assert page.row("parameters") == [("12,345", None), ("12,345", None), ("", None)]
    assert page.row("lr") == [("0.75", "text"), ("0.8", "text"), ("none", "text")]
    assert page.row("model") == [("atto", "text")]  # the same for all
    assert "Not finished: c." in page.texts


def test_figures_of_segmentation(tmp_path):
    for name, figure in (("a", 0.52), ("b", 0.5)):
        figures = {"mean_iou": figure, "mean_iou_multi_scale": figure, "pixel_accuracy_multi_scale": figure}
        write_run(tmp_path / name, figures)
    page = page_of(tmp_path / "a", tmp_path / "b")
    for label in ("mean iou", "mean iou multi scale", "pixel accuracy multi scale"):
        assert page.row(label) == [("52.00%", "best"), ("50.00%", None)]


def test_page_needs_nothing_else(tmp_path):
    text = report.run([write_run(tmp_path / "a")]).read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) == []
    assert "@import" not in text
    assert re.findall(r"url\((?!#)[^)]*\)", text) == []
    assert "<script" not in text


def test_pictures_are_shrunk_and_in_order(tmp_path):
    names = [f"reconstructions/epoch-{number:04d}.png" for number in (1, 2, 16)]
    folder = write_run(tmp_path / "a", pictures=[*names, "reconstructions.png", "predictions.png", "other.png"])
    images = page_of(folder).images
    expected = [f"Reconstructions, epoch {number:04d}" for number in (1, 2, 16)]
    assert [image["alt"] for image in images] == [*expected, "Most confident predictions, correct and wrong"]
    assert {(image["width"], image["height"]) for image in images} == {("1400", "19")}


@pytest.mark.parametrize("content", [b"", b"no picture", "cut off", "broken"])
def test_damaged_pictures_are_left_out(tmp_path, caplog, content):
    names = ["reconstructions/epoch-0001.png", "reconstructions.png", "predictions.png", "confusion_matrix.png"]
    folder = write_run(tmp_path / "a", pictures=names)
    whole = (folder / "predictions.png").read_bytes()
    damaged = {"cut off": whole[:-30], "broken": whole[:40] + bytes(20) + whole[60:]}.get(content, content)
    for name in (names[0], "predictions.png"):
        (folder / name).write_bytes(damaged)
    text = report.run([folder]).read_text()
    assert [image["alt"] for image in Page(text).images] == ["Reconstructions", "Confusion matrix"]
    assert '<div class="card"></div>' not in text
    for name in (names[0], "predictions.png"):
        assert f"{folder / name} is damaged and left out" in caplog.text


def test_curves(tmp_path):
    runs = read.find_runs([write_run(tmp_path / name) for name in ("a", "b")])[1]
    panels = curves.panels_of(runs)
    assert [*panels] == ["loss", "learning_rate"]
    assert panels["loss"][:2] == [("a", "training", (1, 2), (2.0, 1.0)), ("a", "validation", (1, 2), (2.5, 1.5))]
    svg = curves.draw("loss", panels["loss"], ["a", "b"])
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert curves.TEXT not in svg
    for name in ("a, training", "a, validation", "b, training", "b, validation"):
        assert f">{name}<" in svg
    assert svg == curves.draw("loss", panels["loss"], ["a", "b"])


def test_each_run_has_a_colour_of_its_own():
    names = [f"run {number}" for number in range(12)]
    svg = curves.draw("loss", [(name, "training", (1, 2), (2.0, 1.0)) for name in names], names)
    colours = [*map(to_hex, curves.colours())]
    assert {*colours[:12]} <= {*re.findall("#[0-9a-f]{6}", svg)}
    assert len({*colours}) == len(colours) == 60
    assert colours[:10] == [to_hex(f"C{number}") for number in range(10)]


def test_names_of_any_kind(tmp_path):
    """Those of runs and of classes."""
    names = {"x$_$": "x$_$", "_x": "\u200b_x", "caf\udce9": "caf?"}
    for name in names:
        write_run(tmp_path / "all" / name, {**METRICS, "classes": {name: 0.5}}, pictures=())
    text = report.run([tmp_path / "all"]).read_text(encoding="utf-8")
    for drawn in names.values():
        assert f">{drawn}, training<" in text
    assert Page(text).row("caf?") == [("", None), ("", None), ("50.00%", None)]


def test_page_is_utf8_whatever_the_locale(tmp_path, monkeypatch):
    read, write = Path.read_text, Path.write_text
    folder = write_run(tmp_path / "caf\u00e9")
    style = tmp_path / "style.css"
    style.write_text("/* \u00e9 */", encoding="utf-8")
    monkeypatch.setattr(page, "STYLE", style)
    monkeypatch.setattr(Path, "read_text", lambda self, encoding="ascii", **kw: read(self, encoding, **kw))
    monkeypatch.setattr(Path, "write_text", lambda self, text, encoding="ascii": write(self, text, encoding))
    text = report.run([folder]).read_bytes().decode("utf-8")
    assert "/* \u00e9 */" in text
    assert "<h1>caf\u00e9</h1>" in text


def test_where_it_goes(tmp_path):
    one, two = (write_run(tmp_path / name) for name in ("a", "b"))
    assert report.run([one]) == one / "report.html"
    assert report.run([one, two]) == tmp_path / "report.html"
    assert report.run([one, one], tmp_path / "x.html") == tmp_path / "x.html"
    assert Page((tmp_path / "x.html").read_text()).row("top1") == [("75.00%", None)]


def test_no_run(tmp_path):
    write_run(tmp_path / "a")
    with pytest.raises(RunError, match="neither a run's folder"):
        report.run([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "a" / "log.json").write_text("[")
    with pytest.raises(RunError, match=r"log\.json"):
        report.run([tmp_path / "a"])
    assert not (tmp_path / "a" / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content"), [("config.json", "[]"), ("log.json", "{}"), ("metrics.json", "3"), ("metrics.json", "null")]
)
def test_json_of_another_kind(tmp_path, name, content):
    folder = write_run(tmp_path / "a")
    (folder / name).write_text(content)
    with pytest.raises(RunError, match=rf"not a file of a run.*{name}"):
        report.run([folder])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"versions": 3}),
        ("config.json", {"system": ["GPU"]}),
        ("log.json", [3]),
        ("log.json", [{"loss": 1.0}]),
        ("log.json", [{"epoch": 1, "loss": {}}]),
        ("log.json", [{"epoch": 10**400}]),
        ("metrics.json", {"classes": ["cat"]}),
    ],
)
def test_damaged_files(tmp_path, name, content):
    folder = write_run(tmp_path / "a")
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(RunError, match="The JSON files of this run are damaged; remove its folder. Received: .*a$"):
        report.run([folder])


def test_numbers_of_any_size(tmp_path):
    page = page_of(write_run(tmp_path / "a", {"parameters": 10**400, "loss": float("inf"), "top1": float("nan")}))
    assert page.row("loss") == [("inf", None)]
    assert page.row("top1") == [("nan%", None)]
