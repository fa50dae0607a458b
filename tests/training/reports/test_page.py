import pytest

from training.reports.page import MAX_CLASSES, page
from training.reports.read import Run


@pytest.mark.parametrize(("more", "is_shown"), [(0, True), (1, False)])
def test_table_of_classes_up_to_a_length(more, is_shown):
    classes = {f"class {number}": 0.5 for number in range(MAX_CLASSES + more)}
    run = Run(name="a", config={}, system={}, history=[], metrics={"classes": classes}, pictures={}, series=[])
    assert (f"class {MAX_CLASSES - 1}" in page([run])) == is_shown
