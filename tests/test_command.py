"""The command `keras-cnv2` before it imports anything."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_cnv2_command as command
import training.__main__
from keras_cnv2.commands import main as library

ROOT = Path(__file__).parents[1]


def summaries(text):
    """All that help says, without line breaks."""
    return " ".join(text.split())


def test_library_s_commands(capsys):
    with pytest.raises(SystemExit):
        library.main(["--help"])
    help_text = summaries(capsys.readouterr().out)
    assert all(f"{name} {summary}" in help_text for name, summary in command.LIBRARY.items())
    names = help_text.partition("COMMAND ")[2]
    assert [name for name in command.LIBRARY if name in names] == [*command.LIBRARY]


def test_commands_of_training(capsys):
    assert (*command.TRAINING,) == training.__main__.COMMANDS
    with pytest.raises(SystemExit):
        training.__main__.main(["--help"])
    help_text = summaries(capsys.readouterr().out)
    assert all(f"{name} {summary}" in help_text for name, summary in command.TRAINING.items())


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--help"], 0, "finetune"),
        ([], 2, "which command?; the commands are list, "),
        (["fine-tune"], 2, "error: there is no fine-tune; the commands are list, "),
    ],
)
def test_imports_nothing_heavy(arguments, code, told):
    program = (
        f"import sys; sys.argv = ['keras-cnv2', *{arguments}]; import keras_cnv2_command as c; code = c.main(); "
        "assert not {'keras', 'tensorflow', 'numpy', 'keras_cnv2'} & {*sys.modules}; sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == code, run.stderr
    assert told in run.stdout + run.stderr


def test_each_goes_to_its_owner(monkeypatch):
    seen = []
    monkeypatch.setattr("keras_cnv2.commands.main.main", lambda arguments: seen.append(("library", arguments)) or 3)
    monkeypatch.setattr("training.__main__.process", lambda *given: seen.append(given))
    for arguments in (["list"], ["--version"], ["finetune", "--help"]):
        monkeypatch.setattr(sys, "argv", ["keras-cnv2", *arguments])
        assert command.main() == (None if arguments[0] == "finetune" else 3)
    assert seen == [("library", ["list"]), ("library", ["--version"]), (["finetune", "--help"], "keras-cnv2")]


@pytest.mark.parametrize(("given", "level"), [(None, "2"), ("0", "0")])
@pytest.mark.parametrize("name", ["list", "finetune"])
def test_tensorflow_s_log_is_quiet(monkeypatch, name, given, level):
    seen = []

    def see(*arguments):
        seen.append(os.environ["TF_CPP_MIN_LOG_LEVEL"])

    monkeypatch.setattr("keras_cnv2.commands.main.main", see)
    monkeypatch.setattr("training.__main__.process", see)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", given or "")
    if given is None:
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    command.run([name])
    assert seen == [level]


@pytest.mark.parametrize(
    ("name", "backend", "told"),
    [
        ("info", "pytorch", "one of tensorflow, jax, torch, numpy, openvino. Received: KERAS_BACKEND='pytorch'"),
        ("finetune", "numpy", "one of tensorflow, jax, torch. Received: KERAS_BACKEND='numpy'"),
        ("finetune", "jax", "KERAS_BACKEND=jax needs a package that is not installed: pip install jax"),
    ],
)
def test_backends_that_there_are_not(monkeypatch, capsys, name, backend, told):
    """Said in a line, before Keras is imported."""
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command.run([name]) == 1
    assert told in capsys.readouterr().err


def test_in_the_wheel_the_application_has_another_name(monkeypatch, tmp_path):
    """There `training` could be anybody's."""
    assert command.application() == "training"
    monkeypatch.setattr(command, "__file__", str(tmp_path / "keras_cnv2_command.py"))
    for name in ("training", "keras_cnv2_training"):
        (tmp_path / name).mkdir()
        assert command.application() == name


def test_usage_names_the_command(capsys):
    with pytest.raises(SystemExit):
        training.__main__.main(["finetune", "--help"], "keras-cnv2")
    assert "usage: keras-cnv2 finetune" in capsys.readouterr().out
    assert isinstance(library.new_parser(), argparse.ArgumentParser)


def process(program, stdout):
    """A process of the command, with output that is buffered as in a pipe."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    program = f"import sys; import keras_cnv2_command as command; {program}; sys.exit(command.main())"
    command = [sys.executable, "-c", program, "--help"]
    run = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    return run.returncode, run.stderr


@pytest.mark.parametrize(
    "program", ["pass", "command.USAGE *= 10000", "command.run = lambda _: print() or sys.exit(2)"]
)
def test_readers_may_have_enough(program):
    """`keras-cnv2 list | head -1` says nothing of it, whether it fails as it prints or at the end."""
    read, write = os.pipe()
    os.close(read)
    assert process(program, write) == (1, "")
    os.close(write)


def test_output_that_cannot_be_written():
    with open("/dev/full", "w") as full:
        assert process("pass", full) == (1, "error: [Errno 28] No space left on device\n")


def test_without_output():
    assert process("sys.stdout = None", subprocess.DEVNULL) == (0, "")


def interrupt(*_):
    raise KeyboardInterrupt


def no_reader(*_):
    raise BrokenPipeError


def test_interrupted_while_packages_are_imported(monkeypatch, capsys):
    monkeypatch.setattr(command, "run", interrupt)
    assert command.main() == 130
    monkeypatch.setattr("training.__main__.packages", interrupt)
    with pytest.raises(SystemExit) as end:
        training.__main__.main(["recipes"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted\ninterrupted\n"


def test_commands_whose_output_nobody_reads_end(monkeypatch, capsys):
    monkeypatch.setattr("keras_cnv2.commands.main.run_list", no_reader)
    with pytest.raises(BrokenPipeError):  # `command.main` answers it
        library.main(["list"])
    monkeypatch.setattr("training.commands.recipes.main", no_reader)
    with pytest.raises(SystemExit) as end:
        training.__main__.main(["recipes"])
    assert (end.value.code, capsys.readouterr().err) == (1, "")


def test_failing_training_without_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(os, "_exit", lambda code: sys.exit(code + 1000))
    monkeypatch.setattr("training.__main__.main", lambda *_: sys.exit("error: wrong"))
    with pytest.raises(SystemExit, match="1001"):
        training.__main__.process()


def test_help_names_the_module():
    """In the wheel it is `python -m keras_cnv2_training`."""
    usage = f"python -m {training.__name__}"
    assert usage == training.__main__.PROG
