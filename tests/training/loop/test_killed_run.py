"""Runs that are killed at a random step and started again end with the weights of one that was not.

The file is also the program that is killed: python -m tests.training.loop.test_killed_run PHASE FOLDER [STEP]
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.loop import state

ROOT = Path(__file__).parents[3]
STEPS = 24  # two epochs of 12


def program(phase, folder, step=None):
    import keras

    from tests.training.small import finetuning, pretraining, source
    from training.commands import finetune, pretrain, training_run
    from training.commands.reproducible import make_reproducible
    from training.loop.train import train

    fields = {"accumulation": 2, "drop_path": 0.2, "checkpoint_steps": 5, "dtype": "mixed_bfloat16"}
    recipe = (
        pretraining(**fields)
        if phase == "pretrain"
        else finetuning(
            **fields, ema=0.9, rand_augment=9.0, erasing=0.25, label_smoothing=0.1, mixup=0.8, cutmix=1.0, clip_norm=1.0
        )
    )
    module = pretrain if phase == "pretrain" else finetune
    training_run.open_source = lambda *args, **kwargs: source(train=50, test=11)

    class Kill(keras.callbacks.Callback):
        left = step

        def on_train_batch_end(self, batch, logs=None):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    if step:
        training_run.train = lambda *args, callbacks=(), **kwargs: train(
            *args, callbacks=[*callbacks, Kill()], **kwargs
        )
    make_reproducible(recipe)
    module.run(recipe, Path(folder))


def start(*arguments):
    command = [sys.executable, "-m", "tests.training.loop.test_killed_run", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def end(process):
    """Exit code and errors of a process, once it has ended."""
    _, errors = process.communicate()
    return process.returncode, errors


@pytest.mark.slow
@pytest.mark.parametrize("phase", [pytest.param("pretrain", marks=pytest.mark.release), "finetune"])
def test_killed_run_ends_as_if_it_had_not_been(phase, tmp_path):
    step = random.randint(1, STEPS - 1)
    whole, killed = start(phase, tmp_path / "whole"), start(phase, tmp_path / "parts", step)
    code, errors = end(killed)
    assert code == -signal.SIGKILL, errors
    code, errors = end(start(phase, tmp_path / "parts"))
    assert code == 0, f"killed at step {step}: {errors}"
    code, errors = end(whole)
    assert code == 0, errors
    one, two = (
        state.read(tmp_path / name / "checkpoints" / state.NAME.format(STEPS))[0] for name in ("whole", "parts")
    )
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-6, err_msg=f"{name}, killed at step {step}")
    assert not [*tmp_path.rglob(".writing-*")]


if __name__ == "__main__":
    _, phase, folder, *step = sys.argv
    program(phase, folder, *map(int, step))
