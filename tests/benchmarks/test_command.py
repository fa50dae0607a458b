"""python -m benchmarks"""

import argparse
import sys

import pytest

from benchmarks import __main__ as command


def test_list_names_all_and_runs_none(capsys, monkeypatch):
    monkeypatch.setattr(command.subprocess, "run", None)
    command.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(command.BENCHMARKS)
    assert "needs --photos FOLDER" in lines[list(command.BENCHMARKS).index("input_pipeline")]


def test_commands(tmp_path):
    args = argparse.Namespace(photos="/photos", rounds=3, out=str(tmp_path))
    python = [sys.executable, "-m"]
    assert command.command("inference", args, ["--sizes", "atto"]) == [
        *python, "benchmarks.inference", "--rounds", "3", "--out", str(tmp_path), "--sizes", "atto"
    ]  # fmt: skip
    assert command.command("input_pipeline", args, []) == [
        *python, "benchmarks.input_pipeline", "/photos", "--rounds", "3", "--out", str(tmp_path)
    ]  # fmt: skip


def test_one_that_fails_does_not_stop_the_others(monkeypatch, capsys):
    ran = []

    def run(arguments, cwd):
        ran.append(arguments[2])
        return argparse.Namespace(returncode=int(len(ran) == 1))

    monkeypatch.setattr(command.subprocess, "run", run)
    with pytest.raises(SystemExit, match="failed: inference"):
        command.main(["inference", "startup"])
    assert ran == ["benchmarks.inference", "benchmarks.startup"]


def test_unknown(capsys):
    with pytest.raises(SystemExit):
        command.main(["speed"])
    assert "unknown: speed" in capsys.readouterr().err
