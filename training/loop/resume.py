"""Resumes an interrupted run from its newest checkpoint, on all workers. Imports no TensorFlow."""

from keras_cnv2.keras_internals import micro_steps

from ..errors import RunError
from . import state


def resume(model, folder, devices, steps, accumulation, described=None):
    """Loads the newest checkpoint of a run, if there is one, into the model of every worker.

    If an epoch had another number of steps then, the run goes on at the same place in the data, and the chief numbers
    the checkpoint anew.

    Args:
        model: The compiled model.
        folder: Path of the run.
        devices: `training.distribute.devices.Devices`.
        steps: Number of steps in an epoch.
        accumulation: Number of steps whose gradients make one optimizer step.
        described: As in `training.loop.state.save`.

    Returns:
        The `training.loop.state.Progress`.
    """
    progress = restore(model, folder, devices)
    if progress.steps_per_epoch in (None, steps):
        return progress
    progress = recount(model, progress, steps, accumulation)
    if devices.is_chief:
        state.renumber(folder / "checkpoints", model, progress, described)
    return progress


def restore(model, folder, devices, finish=None):
    """Loads the newest checkpoint in the chief's folder into the model of every worker.

    Args:
        model: The compiled model.
        folder: Path of the run.
        devices: `training.distribute.devices.Devices`.
        finish: As in `training.loop.train.train`; "best" loads the best checkpoint instead.

    Returns:
        The `training.loop.state.Progress`.

    Raises:
        RunError: If `finish` is given and there is no checkpoint.
    """
    progress = state.Progress()
    with devices.agreement():
        if devices.is_chief:
            progress = state.restore(folder / "checkpoints", model)
            if finish == "best":
                progress = state.restore_best(folder / "checkpoints", model, progress)
            if finish and not progress.step:
                raise RunError(f"There is no checkpoint yet to finish this run from. Received: {folder}")
    devices.copy_from_chief(state.variables(model).values())
    step, history, *rest = devices.gather(progress)[0]
    return state.Progress(step, tuple(history), *rest)


def recount(model, progress, steps, accumulation):
    """Converts the position in the data to another number of steps per epoch, e.g. after a change of the batch size.

    Args:
        model: The compiled model. The step count of its optimizer, which drives the schedule, is converted as well.
        progress: The `training.loop.state.Progress`.
        steps: Number of steps in an epoch from now on.
        accumulation: Number of steps whose gradients make one optimizer step.

    Returns:
        The `Progress` from now on.
    """
    recounted = progress.rescaled(steps, accumulation)
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    count = micro_steps(optimizer)
    done = int(count)  # may be fewer than the steps: those that overflowed in float16 were skipped
    count.assign(done * recounted.step // max(progress.step, 1) // accumulation * accumulation)
    return recounted
