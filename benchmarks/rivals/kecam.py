"""keras_cv_attention_models' ConvNeXt V2. It needs Keras 2, so its process has TF_USE_LEGACY_KERAS=1."""

from keras_cv_attention_models.convnext import ConvNeXtV2

from benchmarks.graphs import graph


def inference(task):
    """Returns a function that computes logits."""
    made = ConvNeXtV2(
        num_blocks=list(task.depths),
        out_channels=list(task.dims),
        input_shape=(task.image_size, task.image_size, 3),
        num_classes=task.classes,
        drop_connect_rate=0,
        classifier_activation=None,
    )
    if task.weights:
        # The weights of both have the same order.
        arrays = task.state_dict("official").values()
        made.set_weights([_of_keras(array, weight.name) for array, weight in zip(arrays, made.weights, strict=True)])
    return graph(made, task.images())


def _of_keras(array, name):
    """Converts a weight from PyTorch's layout to that of the Keras weight called `name`."""
    if "depthwise" in name:
        return array.transpose(2, 3, 0, 1)
    if "grn" in name:
        return array.ravel()
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
