"""Text that is safe to print: names of files and classes may hold control characters, e.g. terminal escape codes."""

import argparse
import logging


def printable(value):
    """Replaces each character that is not printable, such as control characters, by a question mark.

    Args:
        value: Any object; its `str` is taken.

    Returns:
        A string of one line. It has no lone surrogates, which undecodable file names have and which cannot be encoded.
    """
    return "".join(character if character.isprintable() else "?" for character in str(value))


def printable_lines(value):
    """Applies `printable` to each line of a message."""
    return "\n".join(map(printable, str(value).split("\n")))


class PrintableFormatter(logging.Formatter):
    """Makes log lines printable, since they contain file names."""

    def format(self, record):
        return printable_lines(super().format(record))


class PrintableParser(argparse.ArgumentParser):
    """An argument parser whose error messages are printable."""

    def error(self, message):
        super().error(printable(message))
