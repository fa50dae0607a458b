"""`export_onnx`: export with Keras's own exporter, plus two operations that its converter (tf2onnx) lacks."""

import functools
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_cnv2.checkpoints.metadata import KEY
from keras_cnv2.errors import ExportError
from keras_cnv2.export.check import TOLERANCE, compare, full_precision, sample_images
from keras_cnv2.export.metadata import exported_metadata
from keras_cnv2.export.options import Options
from keras_cnv2.export.outputs import with_named_outputs
from keras_cnv2.export.requirements import check_backend, check_float32
from keras_cnv2.files import check_target, replacing
from keras_cnv2.folding.fold import fold as fold_model
from keras_cnv2.models.pictures import to_input

# Maximum size of an ONNX file in bytes, weights included.
LARGEST = 2**31 - 1


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    image_size: int | None = None,
    resize: str | None = None,
    class_names: Sequence[str] | None = None,
    fold: bool = True,
) -> None:
    """Writes a model as ONNX.

    ```python
    import onnxruntime

    keras_cnv2.export_onnx(model, "model.onnx")
    (probabilities,) = onnxruntime.InferenceSession("model.onnx").run(None, {"images": images})
    ```

    The input is "images" `(N, H, W, C)`, float32. The outputs of a classifier are "probabilities" or "logits"
    `(N, classes)`, depending on its activation ("scores" for any activation other than softmax, sigmoid and linear).
    The outputs of a backbone are "P2" to "P5"; the output of a classifier without its top is "P5" or, with pooling,
    "pooled". If a model of your own has several outputs, they are named after their layers, or after the keys of the
    dict that the model returns.

    A detector returns what `serving_default` of its SavedModel returns, without the names: "boxes", "class_ids",
    "scores", "count" and, if it has masks, "masks"; and what `dense` returns, as "dense_boxes" and so on. Its
    conversion takes a minute or two.

    The file has a metadata entry "keras_cnv2", a JSON object that describes this export: "class_names", "image_size",
    "resize", "channels", "mean" and "std" (to normalise images in 0..255 before inference; 0 and 1 if the model
    normalises them itself) and the activation if it is not the default one.

    The outputs of the file in ONNX Runtime are compared with the model's before the file is moved to `path`.

    Args:
        model: A `keras_cnv2.ConvNeXtV2`, `ConvNeXtV2Backbone` or detector in float32, or a functional or sequential
            model of your own that contains one of the first two.
        path: Path that ends in `.onnx`. An existing file is replaced once the new one is complete.
        image_size: Optional int, the height and width of images in pixels. By default those of the model's
            `input_shape`, which may be variable. A detector needs a fixed one, a multiple of 32.
        resize: "crop" or "squash", how users of the file should resize images, see `keras_cnv2.load_image`. By default
            the model's `resize`, if the image size is the model's own.
        class_names: Optional list of strings, one per class. By default the model's, else "class 0" and so on.
        fold: Bool, whether to fold the model, see `keras_cnv2.fold`.

    Raises:
        ValueError: If the model is not of a supported kind, not in float32 or larger than 2 GB, or an argument is out
            of range.
        ExportError: If a package is missing, or the outputs differ from the model's; no file is left behind.
        OSError: If the file cannot be written.
    """
    check_backend("ONNX")
    from keras_cnv2.export.kinds.detector import ExportedDetector
    from keras_cnv2.export.kinds.kind import kind_for

    path = Path(path)
    kind = kind_for(model, "onnx")(model, Options(image_size, resize, class_names, fold=fold))
    _check(kind.model, path)
    graph, names, compare_file = (_detector if isinstance(kind, ExportedDetector) else _functional)(kind)
    images = to_input(kind.model, sample_images(kind.images.shape, kind.images.smallest))
    with replacing(path) as temporary:
        _convert(graph, kind.images, temporary)
        # TensorFlow sorts the outputs of a dict by name.
        _finish(temporary, sorted(names), exported_metadata(kind))
        with full_precision():
            compare_file(_outputs(temporary, images), images)


def _functional(kind):
    """Returns what becomes the file, the names of its outputs, and the function that compares them with the model's."""
    named = with_named_outputs(kind.model)

    def compare_file(outputs, images):
        expected = named(images, training=False)
        for name, received in outputs.items():
            compare(name, received, expected[name])

    return fold_model(named) if kind.options.fold else named, [*named.output], compare_file


def _detector(kind):
    """As `_functional`, of a detector, whose outputs are compared as those of the signatures of a SavedModel."""
    import tensorflow as tf

    from keras_cnv2.export.kinds.detector import DENSE
    from keras_cnv2.export.saved_model.check import ServedFile

    function = kind.graph()

    def compare_file(outputs, images):
        tensors = {name: tf.constant(values) for name, values in outputs.items()}
        dense = {name.removeprefix(DENSE): values for name, values in tensors.items() if name.startswith(DENSE)}
        kind.check(ServedFile({"dense": dense, "serving_default": tensors}, TOLERANCE), images)

    return _Graph(function), [*function(tf.zeros((1, *kind.images.shape[1:])))], compare_file


class _Graph(keras.Model):
    """A function as a model, to be converted."""

    def __init__(self, function):
        super().__init__(name="graph")  # a name that starts with "_" is none for TensorFlow
        self.function = function
        self.built = True

    def call(self, images):
        return self.function(images)


def _check(model, path):
    check_float32(model)
    if 4 * model.count_params() > LARGEST:
        raise ValueError(f"An ONNX file has 2 GB at most. Received: a model of {4 * model.count_params() / 1e9:.1f} GB")
    if path.suffix != ".onnx":
        raise ValueError(f"The path of an ONNX file ends in .onnx. Received: {str(path)!r}")
    check_target(path)
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ExportError(f'Export to ONNX needs more packages: pip install "keras_cnv2[onnx]" ({error})') from error


def _convert(model, images, path):
    _register_operations()
    spec = keras.InputSpec(shape=images.shape, dtype="float32", name="images")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras probes NumPy for an attribute that tf2onnx needs
        model.export(str(path), format="onnx", verbose=False, input_signature=[spec])


@functools.cache
def _register_operations():
    """Registers in tf2onnx two TensorFlow operations that it lacks: Erfc (in GELU) and EuclideanNorm (in GRN)."""
    from tf2onnx.handler import tf_op

    def replace(context, node, operation, inputs, **attributes):
        output = node.output[0]
        dtype, shape = context.get_dtype(output), context.get_shape(output)
        context.remove_node(node.name)
        made = {"name": node.name, "outputs": [output], "dtypes": [dtype], "shapes": [shape]}
        context.make_node(operation, inputs, attr=attributes, **made)

    @tf_op("Erfc")
    class ComplementaryErrorFunction:
        @classmethod
        def version_9(cls, context, node, **_):
            erf = context.make_node("Erf", node.input)
            one = context.make_const(f"{node.name}/one", np.float32(1))
            replace(context, node, "Sub", [one.output[0], erf.output[0]])

    @tf_op("EuclideanNorm")
    class EuclideanNorm:
        @classmethod
        def version_1(cls, context, node, **_):
            axes = np.ravel(node.inputs[1].get_tensor_value()).tolist()
            keep = int(node.get_attr_value("keep_dims", False))
            replace(context, node, "ReduceL2", node.input[:1], axes=axes, keepdims=keep)


def _finish(path, names, metadata):
    """Names the outputs and the variable dimensions of the file, and adds the metadata."""
    import onnx

    file = onnx.load(path)
    renamed = dict(zip((output.name for output in file.graph.output), names, strict=True))
    for node in file.graph.node:
        node.output[:] = [renamed.get(name, name) for name in node.output]
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for output in file.graph.output:
        output.name = renamed[output.name]
    for tensor in (*file.graph.input, *file.graph.output):
        for size, name in zip(tensor.type.tensor_type.shape.dim, ("N", "H", "W")):
            if size.dim_param:
                size.dim_param = name if tensor is file.graph.input[0] or name == "N" else f"{tensor.name}_{name}"
    onnx.helper.set_model_props(file, {KEY: json.dumps(metadata)})
    onnx.checker.check_model(file)
    onnx.save(file, path)


def _outputs(path, images):
    """Returns the outputs of the file in ONNX Runtime, {name: array}."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, {"images": images})))
