import pytest

from training.reports.read import is_number


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, True), (0.5, True), (float("nan"), True), (10**400, False), (True, False), ("1", False), (None, False)],
)
def test_numbers_of_json_are_those_that_a_float_can_be(value, expected):
    assert is_number(value) == expected
