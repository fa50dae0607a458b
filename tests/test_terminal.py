import logging

import pytest

from keras_cnv2.terminal import PrintableFormatter, PrintableParser, printable, printable_lines

EVIL = "a\x1b[2J\x07\x9b\r\n\udcffü"


def test_printable():
    assert printable(EVIL) == "a?[2J?????ü"
    assert printable("plain ✓ 日本") == "plain ✓ 日本"
    assert printable(3) == "3"


def test_lines():
    assert printable_lines(f"one\n{EVIL}") == "one\na?[2J???\n?ü"


def test_log_lines():
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s: unreadable", ("b\x1b[0m.jpg",), None)
    assert PrintableFormatter("%(levelname)s: %(message)s").format(record) == "WARNING: b?[0m.jpg: unreadable"


def test_errors_of_arguments(capsys):
    with pytest.raises(SystemExit):
        PrintableParser(prog="x").parse_args([EVIL])
    assert "unrecognized arguments: a?[2J" in capsys.readouterr().err
