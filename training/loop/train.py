"""Fits a model to the end of its recipe, with checkpoints. Imports no TensorFlow: it runs on any backend."""

import contextlib
from functools import partial

import keras

from ..distribute.devices import ONE_DEVICE
from ..distribute.preemption import EndWhenTold
from ..models.build import rematerialize
from . import state
from .batches import endless
from .callbacks import EvaluateAverages, Log, Position, ProgressLine, SaveCheckpoints, StopIfNotFinite, tensorboard
from .optimizer import new_optimizer
from .resume import restore, resume


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
    steps, step_batch = recipe.steps_per_epoch(source.size), recipe.step_batch
    described = described or keras.saving.serialize_keras_object(model)  # without the arguments of `compile`
    if recipe.remat:
        rematerialize(model)
    with devices.scope():
        model.compile(
            new_optimizer(recipe, steps), weighted_metrics=metrics() if metrics else None, **compile_arguments
        )
        model.optimizer.build(model.trainable_variables)
    if finish:
        progress = restore(model, folder, devices, finish)
        model.optimizer.finalize_variable_values(model.trainable_variables)
        return progress
    progress = resume(model, folder, devices, steps, recipe.accumulation, described)

    validates = monitor is not None and source.validation_size > 0
    written = folder if devices.is_chief else None
    saved = folder / "checkpoints" if devices.is_chief else None
    position = Position(progress.step, steps)
    guard = StopIfNotFinite(position, saved)
    log = Log(written, position, step_batch, progress.history)
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
    everywhere = [*([EvaluateAverages()] if recipe.ema else []), position, guard, log, saver]
    line = ProgressLine(position, step_batch, recipe.epochs)
    shown = [line, *tensorboard(folder), *callbacks] if devices.is_chief else []
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
                endless(devices.batches(lambda share, batches=batches: batches(share))),
                validation_data=devices.batches(lambda share: source.validation(recipe, step_batch, share))
                if validates
                else None,
                validation_steps=-(-source.validation_size // step_batch) if validates else None,
                steps_per_epoch=steps,
                epochs=epochs,
                initial_epoch=position.step // steps,
                shuffle=False,
                callbacks=[*everywhere, *shown, last],
                verbose=0,
            )
            if not is_last:  # `fit` has replaced the weights by their moving averages
                restore(model, folder, devices)
    return state.Progress(position.step, tuple(log.history), saver.best, steps)
