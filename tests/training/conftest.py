import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def command(*arguments):
    """Runs `python -m training` as a user does."""
    line = [sys.executable, "-m", "training", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory):
    """One run of the quickstart with a small budget: its folder and its process."""
    runs = tmp_path_factory.mktemp("runs")
    process = command("quickstart", "--runs", runs, "--name", "small", "--pretrain-epochs", 1, "--finetune-epochs", 2)
    assert process.returncode == 0, process.stderr
    return runs / "small", process
