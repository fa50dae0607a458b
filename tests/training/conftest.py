import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def command(*arguments):
    """Runs `python -m training` as a user does."""
    line = [sys.executable, "-m", "training", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT)


def run_small(runs):
    """Runs the quickstart with a small budget. Returns its folder and its process."""
    process = command("quickstart", "--runs", runs, "--name", "small", "--pretrain-epochs", 1, "--finetune-epochs", 2)
    assert process.returncode == 0, process.stderr
    return runs / "small", process


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory):
    """One small run: its folder and its process."""
    return run_small(tmp_path_factory.mktemp("runs"))
