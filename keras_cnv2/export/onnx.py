"""`export_onnx`: export with Keras's own exporter, plus two operations that its converter (tf2onnx) lacks."""

import functools
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.checkpoints.metadata import KEY
from keras_cnv2.errors import ExportError
from keras_cnv2.export import pixel_values
from keras_cnv2.export.check import TOLERANCE, compare, full_precision, sample_images
from keras_cnv2.export.metadata import exported_metadata
from keras_cnv2.export.options import Options
from keras_cnv2.export.outputs import with_named_outputs
from keras_cnv2.export.requirements import check_backend, check_float32
from keras_cnv2.files import check_target, replacing
from keras_cnv2.folding.fold import fold as fold_model
from keras_cnv2.models.pictures import to_input
from keras_cnv2.models.stages import INPUT
from keras_cnv2.pretrained import onnx_folder
from keras_cnv2.pretrained.facts import facts_of

LAYOUTS = ("keras", "transformers")

# The oldest opset. The newest one is that of the converter.
OLDEST_OPSET = 13

# The release of Keras from which on its exporter takes an opset.
TAKES_OPSET = (3, 12)

# Maximum size of an ONNX file in bytes, weights included.
LARGEST = 2**31 - 1


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    image_size: int | None = None,
    resize: str | None = None,
    class_names: Sequence[str] | None = None,
    fold: bool = True,
    opset_version: int | None = None,
    layout: str = "keras",
) -> None:
    """Writes a model as ONNX.

    ```python
    import onnxruntime

    keras_cnv2.export_onnx(model, "model.onnx")
    (probabilities,) = onnxruntime.InferenceSession("model.onnx").run(None, {"images": images})
    keras_cnv2.export_onnx(model, "for_the_web", layout="transformers")  # a folder, for transformers.js
    ```

    With the layout "transformers", a folder is written as transformers.js, optimum and others read it from the hub:
    "onnx/model.onnx", "config.json" and "preprocessor_config.json". The file takes "pixel_values" `(N, C, H, W)`,
    normalised as the configuration says, and returns "logits" `(N, classes)`. A folder that
    `keras_cnv2.save_pretrained` has written for the same model gets the ONNX file in addition.

    With the layout "keras", the input is "images" `(N, H, W, C)`, float32. The outputs of a classifier are
    "probabilities" or "logits" `(N, classes)`, depending on its activation ("scores" for any activation other than
    softmax, sigmoid and linear). The outputs of a backbone are "P2" to "P5"; the output of a classifier without its top
    is "P5" or, with pooling, "pooled". If a model of your own has several outputs, they are named after their layers,
    or after the keys of the dict that the model returns.

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
        path: Path that ends in `.onnx`, or with the layout "transformers" the path of a folder. An existing file is
            replaced once the new one is complete.
        image_size: Optional int, the height and width of images in pixels. By default those of the model's
            `input_shape`, which may be variable. A detector needs a fixed one, a multiple of 32.
        resize: "crop" or "squash", how users of the file should resize images, see `keras_cnv2.load_image`. By default
            the model's `resize`, if the image size is the model's own.
        class_names: Optional list of strings, one per class. By default the model's, else "class 0" and so on.
        fold: Bool, whether to fold the model, see `keras_cnv2.fold`.
        opset_version: Optional int, the version of ONNX's operations, from 13 to 18 with tf2onnx 1.17, whose default is
            15. Needs Keras 3.12 or newer.
        layout: "keras" or, for a `keras_cnv2.ConvNeXtV2` with its top, "transformers".

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
    _check_layout(model, layout)
    kind = kind_for(model, "onnx")(model, Options(image_size, resize, class_names, fold=fold))
    _check(kind.model, opset_version)
    if layout == "transformers":
        facts = facts_of(model, image_size, resize, class_names)
        export, place = _pixel_values(kind, facts), onnx_folder.writing(path, facts)
    else:
        _check_path(path)
        export, place = (_detector if isinstance(kind, ExportedDetector) else _functional)(kind), replacing(path)
    with place as temporary:
        _convert(export, temporary, opset_version)
        _finish(temporary, export)
        with full_precision():
            images = sample_images(kind.images.shape, kind.images.smallest)
            export.check(_outputs(temporary, export.taken(images)), images)


class _Export(NamedTuple):
    """What becomes an ONNX file.

    Args:
        graph: Model from one input to a dict of outputs.
        spec: `keras.InputSpec` of the input.
        axes: The names of the input's dimensions where they are variable.
        names: The names of the outputs.
        metadata: Dict, the entry of this package.
        taken: Function from images in 0..255 `(N, H, W, channels)` to what the file takes.
        check: Function of the outputs of the file, {name: array}, and the images in 0..255 that they belong to. Raises
            an `ExportError` unless they are the model's.
    """

    graph: keras.Model
    spec: keras.InputSpec
    axes: tuple[str, ...]
    names: list[str]
    metadata: dict
    taken: Any
    check: Any


def _of_images(kind, graph, names, check):
    """Returns the `_Export` of a graph that takes images as the model does."""

    def taken(images):
        return to_input(kind.model, images)

    return _Export(
        graph=graph,
        spec=keras.InputSpec(shape=kind.images.shape, dtype="float32", name=INPUT),
        axes=("N", "H", "W"),
        names=names,
        metadata=exported_metadata(kind),
        taken=taken,
        check=lambda outputs, images: check(outputs, taken(images)),
    )


def _functional(kind):
    """Returns the `_Export` of a functional model."""
    named = with_named_outputs(kind.model)

    def check(outputs, images):
        expected = named(images, training=False)
        for name, received in outputs.items():
            compare(name, received, expected[name])

    return _of_images(kind, fold_model(named) if kind.options.fold else named, [*named.output], check)


def _detector(kind):
    """Returns the `_Export` of a detector, whose outputs are compared like those of the signatures of a SavedModel."""
    import tensorflow as tf

    from keras_cnv2.export.kinds.detector import DENSE
    from keras_cnv2.export.saved_model.check import ServedFile

    function = kind.graph()

    def check(outputs, images):
        tensors = {name: tf.constant(values) for name, values in outputs.items()}
        dense = {name.removeprefix(DENSE): values for name, values in tensors.items() if name.startswith(DENSE)}
        kind.check(ServedFile({"dense": dense, "serving_default": tensors}, TOLERANCE), images)

    return _of_images(kind, _Graph(function), [*function(tf.zeros((1, *kind.images.shape[1:])))], check)


def _pixel_values(kind, facts):
    """Returns the `_Export` of a classifier in the layout "transformers"."""
    export = pixel_values.PixelValues(kind, facts)
    return _Export(
        graph=export.graph,
        spec=keras.InputSpec(shape=export.graph.input_shape, dtype="float32", name=pixel_values.INPUT),
        axes=pixel_values.AXES,
        names=[pixel_values.OUTPUT],
        metadata=export.metadata,
        taken=export.pixels,
        check=export.check,
    )


class _Graph(keras.Model):
    """A function as a model, to be converted."""

    def __init__(self, function):
        super().__init__(name="graph")  # a name that starts with "_" is none for TensorFlow
        self.function = function
        self.built = True

    def call(self, images):
        return self.function(images)


def _check_layout(model, layout):
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {LAYOUTS}. Received: layout={layout!r}")
    if layout == "transformers":
        pixel_values.check_classifier(model)


def _check(model, opset_version):
    check_float32(model)
    if 4 * model.count_params() > LARGEST:
        raise ValueError(f"An ONNX file has 2 GB at most. Received: a model of {4 * model.count_params() / 1e9:.1f} GB")
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import tf2onnx
    except ImportError as error:
        raise ExportError(f'Export to ONNX needs more packages: pip install "keras_cnv2[onnx]" ({error})') from error
    if opset_version is None:
        return
    newest = min(max(tf2onnx.constants.OPSET_TO_IR_VERSION), onnx.defs.onnx_opset_version())
    if not is_positive_int(opset_version) or not OLDEST_OPSET <= opset_version <= newest:
        raise ValueError(
            f"opset_version must be an int from {OLDEST_OPSET} to {newest}. Received: opset_version={opset_version!r}"
        )
    if tuple(map(int, keras.__version__.split(".")[:2])) < TAKES_OPSET:
        raise ValueError(
            f"opset_version needs Keras {'.'.join(map(str, TAKES_OPSET))} or newer: leave it out. "
            f"Received: opset_version={opset_version} with Keras {keras.__version__}"
        )


def _check_path(path):
    if path.suffix != ".onnx":
        raise ValueError(f"The path of an ONNX file ends in .onnx. Received: {str(path)!r}")
    check_target(path)


def _convert(export, path, opset_version):
    _register_operations()
    options = {} if opset_version is None else {"opset_version": int(opset_version)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras probes NumPy for an attribute that tf2onnx needs
        export.graph.export(str(path), format="onnx", verbose=False, input_signature=[export.spec], **options)


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

    def axes_of(node):
        return np.ravel(node.inputs[1].get_tensor_value()).astype("int64")

    def keeps(node):
        return int(node.get_attr_value("keep_dims", False))

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
            replace(context, node, "ReduceL2", node.input[:1], axes=axes_of(node).tolist(), keepdims=keeps(node))

        @classmethod
        def version_18(cls, context, node, **_):
            """From this opset on, the axes are an input."""
            axes = context.make_const(f"{node.name}/axes", axes_of(node))
            replace(context, node, "ReduceL2", [node.input[0], axes.output[0]], keepdims=keeps(node))


def _finish(path, export):
    """Names the outputs and the variable dimensions of the file, and adds the metadata."""
    import onnx

    file = onnx.load(path)
    # TensorFlow sorts the outputs of a dict by name.
    renamed = dict(zip((output.name for output in file.graph.output), sorted(export.names), strict=True))
    for node in file.graph.node:
        node.output[:] = [renamed.get(name, name) for name in node.output]
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for output in file.graph.output:
        output.name = renamed[output.name]
    for tensor in (*file.graph.input, *file.graph.output):
        for size, name in zip(tensor.type.tensor_type.shape.dim, export.axes):
            if size.dim_param:
                is_shared = tensor is file.graph.input[0] or name == export.axes[0]
                size.dim_param = name if is_shared else f"{tensor.name}_{name}"
    onnx.helper.set_model_props(file, {KEY: json.dumps(export.metadata)})
    onnx.checker.check_model(file)
    onnx.save(file, path)


def _outputs(path, values):
    """Returns the outputs of the file in ONNX Runtime, {name: array}."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, {taken.name: values})))
