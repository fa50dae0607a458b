from dataclasses import replace

import pytest

from training.reports.page import MAX_CLASSES, page
from training.reports.read import Run


@pytest.mark.parametrize(("more", "is_shown"), [(0, True), (1, False)])
def test_table_of_classes_up_to_a_length(more, is_shown):
    classes = {f"class {number}": 0.5 for number in range(MAX_CLASSES + more)}
    run = Run(name="a", config={}, system={}, history=[], metrics={"classes": classes}, pictures={}, series=[])
    assert (f"class {MAX_CLASSES - 1}" in page([run])) == is_shown


def test_masks_have_figures_and_a_table_of_classes():
    metrics = {"AP": 0.5, "mask_AP": 0.25, "classes": {"cat": 0.625}, "mask_classes": {"cat": 0.125, "dog": None}}
    runs = [
        Run(name=name, config={}, system={}, history=[], metrics=given, pictures={}, series=[])
        for name, given in (("a", metrics), ("b", {**metrics, "mask_AP": 0.375}))
    ]
    text = page(runs)
    assert '<th>mask AP</th><td>25.00%</td><td class="best">37.50%</td>' in text
    assert text.index("62.50%") < text.index("<h2>Masks of classes</h2>") < text.index("12.50%")
    assert "Masks of classes" not in page([replace(runs[0], metrics={"AP": 0.5})])
