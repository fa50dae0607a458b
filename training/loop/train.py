"""Compiles and fits a model, and resumes interrupted runs. Imports no TensorFlow: it runs on any backend."""

import contextlib
import importlib.util
import itertools
from functools import partial

import keras

import keras_cnv2
from keras_cnv2.keras_internals import micro_steps
from keras_cnv2.optimizers.loss_scale import LossScaleOptimizer

from ..distribute.devices import ONE_DEVICE
from ..distribute.preemption import EndWhenTold
from ..errors import RunError
from ..models.build import rematerialize
from . import state
from .callbacks import EvaluateAverages, Log, Position, ProgressLine, SaveCheckpoints, StopIfNotFinite

OPTIMIZERS = {"adamw": keras_cnv2.LayerDecayAdamW, "muon": keras_cnv2.LayerDecayMuon}


def new_optimizer(recipe, steps_per_epoch):
    """Returns a recipe's optimizer. Its schedule counts optimizer steps: `recipe.accumulation` training steps each."""
    optimizer = OPTIMIZERS[recipe.optimizer](
        recipe.learning_rate(steps_per_epoch // recipe.accumulation),
        weight_decay=recipe.weight_decay,
        beta_1=recipe.betas[0],
        beta_2=recipe.betas[1],
        layer_decay=recipe.layer_decay,
        layer_decay_type=recipe.layer_decay_type,
        global_clipnorm=recipe.clip_norm,
        use_ema=recipe.ema is not None,
        ema_momentum=recipe.ema or 0.0,
        gradient_accumulation_steps=recipe.accumulation if recipe.accumulation > 1 else None,
    )
    return LossScaleOptimizer(optimizer) if recipe.dtype == "mixed_float16" else optimizer


def train(
    model,
    recipe,
    source,
    folder,
    augmentation=None,
    callbacks=(),
    devices=ONE_DEVICE,
    metrics=None,
    monitor=None,
    save_best=None,
    finish=None,
    described=None,
    **compile_arguments,
):
    """Trains a model to the end of its recipe, starting from the newest checkpoint in the folder if there is one.

    With `recipe.ema`, the model holds the averaged weights at the end.

    Args:
        model: The model, created in the devices' scope.
        recipe: The `training.recipes.fields.Training`.
        source: The data, a `training.data.source.Source`.
        folder: Path of the run's folder. Only the chief writes logs and checkpoints there.
        augmentation: Optional `augmentation` argument of `source.training`.
        callbacks: Further Keras callbacks, used on the chief only.
        devices: `training.distribute.devices.Devices`.
        metrics: Optional function that returns a list of metrics.
        monitor: Name of the validation metric that selects the best checkpoint, e.g. "val_accuracy". `None`: no
            validation; the training loss selects it.
        save_best: Optional function without arguments that writes the model. It is called on the chief after each
            epoch whose validation is the best so far.
        finish: "newest" or "best": load this checkpoint and end the run without a further step.
        described: Optional result of `keras.saving.serialize_keras_object` for the model that is saved at the end, if
            that is not `model`.
        **compile_arguments: Arguments for `model.compile`, e.g. the loss.

    Returns:
        The `training.loop.state.Progress` at the end; its history has the metrics of each epoch.

    Raises:
        TrainingError: If the loss is not finite.
        RunError: If there is no checkpoint to finish from.
        Preempted: After a SIGTERM; the state is saved.
        Interrupted: After a SIGINT; the state is saved.
    """
    steps = recipe.steps_per_epoch(source.size)
    described = described or keras.saving.serialize_keras_object(model)  # without the arguments of `compile`
    if recipe.remat:
        rematerialize(model)
    with devices.scope():
        model.compile(
            new_optimizer(recipe, steps), weighted_metrics=metrics() if metrics else None, **compile_arguments
        )
        model.optimizer.build(model.trainable_variables)
    progress = restore(model, folder, devices, finish)
    if finish:
        model.optimizer.finalize_variable_values(model.trainable_variables)
        return progress
    if progress.steps_per_epoch not in (None, steps):
        progress = recount(model, progress, steps, recipe.accumulation)
        if devices.is_chief:
            state.renumber(folder / "checkpoints", model, progress, described)

    validates = monitor is not None and source.validation_size > 0
    written = folder if devices.is_chief else None
    saved = folder / "checkpoints" if devices.is_chief else None
    position = Position(progress.step, steps)
    guard = StopIfNotFinite(position, saved)
    log = Log(written, position, recipe.step_batch, progress.history)
    # Save only at optimizer steps: in between, each replica has its own accumulated gradients, and only one replica's
    # would be saved.
    every = -(-recipe.checkpoint_steps // recipe.accumulation) * recipe.accumulation
    saver = SaveCheckpoints(
        saved,
        position,
        log,
        guard,
        every,
        monitor if validates else "loss",
        progress.best,
        save_best if validates else None,
        described,
    )
    everywhere = [*averages(recipe), position, guard, log, saver]
    line = ProgressLine(position, recipe.step_batch, recipe.epochs)
    shown = [line, *tensorboard(folder), *callbacks]
    last = EndWhenTold(saver, devices, recipe.accumulation)
    with last.listening(), contextlib.closing(line), source.clear_errors():
        for part, epochs in recipe.parts:
            is_last = part is recipe
            if position.step >= epochs * steps and not is_last:
                continue
            batches = partial(source.training, part, position.step, augmentation)
            # Compile anew for each image size: a function first traced with another size would be retraced for images
            # of unknown size, where the fast kernels do not apply.
            model.make_train_function(force=True)
            model.fit(
                _endless(devices.batches(lambda share, batches=batches: batches(share))),
                validation_data=devices.batches(lambda share: source.validation(recipe, recipe.step_batch, share))
                if validates
                else None,
                validation_steps=-(-source.validation_size // recipe.step_batch) if validates else None,
                steps_per_epoch=steps,
                epochs=epochs,
                initial_epoch=position.step // steps,
                shuffle=False,
                callbacks=[*everywhere, *(shown if devices.is_chief else []), last],
                verbose=0,
            )
            if not is_last:  # `fit` has replaced the weights by their moving averages
                restore(model, folder, devices)
    return state.Progress(position.step, tuple(log.history), saver.best, steps)


def _endless(batches):
    """Returns endless batches for `fit`, a `keras.utils.PyDataset` as a generator.

    Keras's adapter of a `PyDataset` cannot begin another epoch after `Position` has ended one early.
    """
    if not isinstance(batches, keras.utils.PyDataset):
        return batches
    numbered = map(batches.__getitem__, itertools.count())
    return (batch if isinstance(batch, tuple) else (batch,) for batch in numbered)


def restore(model, folder, devices, finish=None):
    """Loads the newest checkpoint in the chief's folder into the model of every worker.

    Args:
        model: The compiled model.
        folder: Path of the run.
        devices: `training.distribute.devices.Devices`.
        finish: As in `train`; "best" loads the best checkpoint instead.

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


def averages(recipe):
    """Returns the callbacks that a moving average of the weights needs."""
    return [EvaluateAverages()] if recipe.ema else []


def tensorboard(folder):
    """Returns a list with the TensorBoard callback if TensorBoard and TensorFlow are installed, else an empty list."""
    if not all(map(importlib.util.find_spec, ("tensorflow", "tensorboard"))):
        return []
    return [keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)]


def classifier_metrics():
    """Returns accuracy and loss metrics. Keras's own loss would also count the padding in the last validation batch."""
    return [keras.metrics.CategoricalCrossentropy(name="loss", from_logits=True), "accuracy"]
