"""keras.applications' ConvNeXtTiny. It is V1, without GRN: about the same amount of work, but other outputs."""

import keras
import numpy as np

from benchmarks.graphs import graph

TINY = ((3, 3, 9, 3), (96, 192, 384, 768))


def inference(task, check=True):
    """Returns a function that computes logits with initial weights, as ours do not fit.

    `check` compares its logits with those of `predict`.
    """
    if (task.depths, task.dims) != TINY:
        raise ValueError(f"Of these sizes, keras.applications has tiny alone. Received: dims={task.dims}")
    made = keras.applications.ConvNeXtTiny(
        weights=None,
        include_preprocessing=False,
        input_shape=(task.image_size, task.image_size, 3),
        classes=task.classes,
        classifier_activation=None,
    )
    run = graph(made, task.images())
    if check:
        np.testing.assert_allclose(run(), made.predict(task.images(), verbose=0), atol=1e-5)
    return run
