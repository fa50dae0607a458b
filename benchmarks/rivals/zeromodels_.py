"""zeromodels' ConvNeXt V2, Keras 3 on TensorFlow."""

from zeromodels.models.convnextv2 import ConvNeXtV2ImageClassify

from benchmarks.graphs import graph


def inference(task):
    """Returns a function that computes logits."""
    made = ConvNeXtV2ImageClassify(
        depths=task.depths, projection_dim=task.dims, image_size=task.image_size, num_classes=task.classes
    )
    if task.weights:
        ConvNeXtV2ImageClassify.transfer_from_timm(made, task.state_dict("timm"))
    return graph(made, task.images())
