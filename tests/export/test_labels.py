import pytest

from keras_cnv2.export.labels import one_line_each


def test_names_of_one_line():
    names = ("ant", "elk, or moose", "dürüm")
    assert one_line_each(names) == names


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "a\u2028b", "a\n", "\ud800", 3])
def test_names_that_are_no_line_of_a_file(name):
    with pytest.raises(ValueError, match="text of one line each, to be exported. Received: "):
        one_line_each(["ant", name])
