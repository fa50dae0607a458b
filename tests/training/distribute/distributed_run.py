"""A worker of test_distribute.py: training with recipes for models of a few thousand numbers.

python -m tests.training.distribute.distributed_run all DATA STRATEGY FOLDER [STRATEGY FOLDER]
    pre-trains, fine-tunes with a teacher and evaluates; "mirrored" on two logical devices of this machine

python -m tests.training.distribute.distributed_run tuned DATA PRETRAINING FOLDER
    fine-tunes and evaluates as "all" does, as one of several workers, from a run of pre-training

python -m tests.training.distribute.distributed_run eager|dies COMMAND [OPTION...]
    a command of `python -m training`, with eager steps: there is nothing to trace. With "dies" the process is killed
    by SIGKILL while it writes its second checkpoint.
"""

import itertools
import os
import signal
import sys
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

import keras_cnv2
from tests.training.small import finetuning, pretraining
from training.__main__ import process
from training.commands import evaluate, evaluation, finetune, pretrain, training_run
from training.distribute.strategies import open_devices
from training.files import write_json
from training.loop import state
from training.loop.train import train
from training.recipes import images

PRETRAINING = pretraining(drop_path=0.2, checkpoint_steps=2)
ARCHITECTURE = {name: getattr(PRETRAINING, name) for name in ("depths", "dims", "stem_stride")}
FINETUNING = finetuning(
    drop_path=0.2, checkpoint_steps=4, accumulation=2, ema=0.9, clip_norm=1.0, layer_decay=0.9, erasing=0.25, mixup=0.8
)


def everything(data, *strategies_and_folders):
    if "mirrored" in strategies_and_folders:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for strategy, folder in zip(strategies_and_folders[::2], strategies_and_folders[1::2]):
        devices, folder = open_devices(strategy), Path(folder)
        pretrain.run(pretraining(**(vars(PRETRAINING) | {"data": data})), folder / "pretraining", devices)
        teacher().save(folder / "teacher.keras")
        devices.gather("ready")  # once the chief has saved
        tuned(data, folder / "pretraining", folder, devices)
        keras.backend.clear_session()


def teacher():
    """A classifier of images of one other size."""
    keras.utils.set_random_seed(1)
    return keras_cnv2.ConvNeXtV2(**{**ARCHITECTURE, "classes": 3, "input_shape": (24, 24, 3)})


def tuned(data, pretrained, folder, devices=None):
    """Fine-tunes with the teacher that lies beside the run of pre-training."""
    devices, folder = devices or open_devices("multiworker"), Path(folder)
    fields = {"data": data, "weights": str(pretrained), "teacher": str(Path(pretrained).parent / "teacher.keras")}
    finetune.run(finetuning(**(vars(FINETUNING) | fields)), folder / "finetuning", devices)
    devices.gather("ready")
    chosen = evaluation.Evaluation(data=data, weights=str(folder / "finetuning"), image_size=16, batch_size=4)
    scores = evaluate.run(chosen, devices)
    if devices.is_chief:
        write_json(folder / "scores.json", scores)


def command(mode, *arguments):
    images.PRETRAINING["small"] = PRETRAINING
    training_run.train = partial(train, run_eagerly=True)
    if mode == "dies":
        times, fsync = itertools.count(1), os.fsync
        state.os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL) if next(times) == 2 else fsync(file)
    process([*arguments])


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    if mode in ("all", "tuned"):
        {"all": everything, "tuned": tuned}[mode](*rest)
    else:
        command(mode, *rest)
