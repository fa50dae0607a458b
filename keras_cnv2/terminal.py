"""What goes to a terminal: names of files and classes come from elsewhere, and must not steer it."""

import argparse
import logging


def printable(value):
    """Text in which a question mark stands for each character that would steer a terminal.

    Args:
        value: Anything; its `str` is taken.

    Returns:
        A string of one line, without halves of characters, which undecodable names of files have and which cannot be
        written.
    """
    return "".join(character if character.isprintable() else "?" for character in str(value))


def printable_lines(value):
    """`printable` for a message of several lines."""
    return "\n".join(map(printable, str(value).split("\n")))


class PrintableFormatter(logging.Formatter):
    """Formats log lines, which name files as well."""

    def format(self, record):
        return printable_lines(super().format(record))


class PrintableParser(argparse.ArgumentParser):
    """Parses arguments; its errors are printable."""

    def error(self, message):
        super().error(printable(message))
