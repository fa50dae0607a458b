"""Builds our model for all benchmarks, on any backend."""

import keras_cnv2


def classifier(task, dtype=None):
    """Builds a classifier from normalised images to logits, the same task as for all contestants.

    Args:
        task: `benchmarks.tasks.Task`.
        dtype: Optional Keras dtype policy.
    """
    made = keras_cnv2.ConvNeXtV2(
        task.depths,
        task.dims,
        classes=task.classes,
        classifier_activation=None,
        include_preprocessing=False,
        input_shape=(task.image_size, task.image_size, 3),
        stem_stride=task.stem_stride,
        dtype=dtype,
    )
    if task.weights:
        keras_cnv2.load_checkpoint(made, task.state_dict("official"))
    return made
