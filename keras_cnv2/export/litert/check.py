"""Compares the outputs of a LiteRT file with those of its model."""

import numpy as np

from keras_cnv2.errors import ExportError
from keras_cnv2.export.check import compare, full_precision, sample_images
from keras_cnv2.export.litert.convert import operation, read
from keras_cnv2.export.litert.representative import as_dtype
from keras_cnv2.models.pictures import to_input

# Largest allowed error of outputs, relative to their spread over channels (both root mean square). Measured with
# pseudo-weights on photographs: 0.002, 0.04 and 0.04. With GRN and LayerNorm in int8 it is 0.7, and between the outputs
# of different images 1.4.
ALLOWED = {"float16": 0.02, "dynamic": 0.2, "int8": 0.25}

# Number of batches to compare.
BATCHES = 4


def check_file(path, named, model, quantization, batches):
    """Raises an `ExportError` unless a file gives the model's outputs and uses builtin operations only.

    Args:
        path: Path of the file.
        named: The model with a dict of outputs, from `with_named_outputs`.
        model: The original model, which determines the range of its images.
        quantization: `None`, "float16", "dynamic" or "int8": the quantization of the file.
        batches: List of batches of images to compare on, or `None` for synthetic images.
    """
    content = path.read_bytes()
    check_operations(content)
    run, shape, dtype = runner(content)
    for images in (batches or _made_up(model, shape))[:BATCHES]:
        images = as_dtype(images, dtype)
        received = run(images=images)
        with full_precision():
            outputs = named(images, training=False)
        for name, expected in outputs.items():
            if quantization is None:
                compare(name, received[name], expected)
            else:
                compare_quantized(name, received[name], np.asarray(expected), quantization)


def check_operations(content):
    """Raises an `ExportError` if the file needs operations that are not built into LiteRT."""
    graph = read(content)
    used = {operation(graph, operator) for subgraph in graph.subgraphs for operator in subgraph.operators}
    foreign = used & {None, "CUSTOM", "DELEGATE"}
    if foreign:
        codes = sorted((code.customCode or b"?").decode() for code in graph.operatorCodes if code.customCode)
        raise ExportError(f"The file needs operations that are not built into LiteRT. Received: {codes}")


def compare_quantized(name, received, expected, quantization):
    """Raises an `ExportError` if outputs differ by more than quantization explains.

    The error is relative to the spread of the outputs around their mean over channels. Relative to the outputs
    themselves it could look small, because probabilities of many classes, and features, can have a mean that is large
    compared with the differences between channels.
    """
    spread = expected - expected.mean(-1, keepdims=True) if expected.shape[-1] > 1 else expected
    off = _rms(received - expected) / max(_rms(spread), 1e-4)
    if not off <= ALLOWED[quantization]:  # also true for NaN
        raise ExportError(
            f"{name}: the quantized values are not the model's. For int8, give representative images that resemble "
            f"those that the model will see. Received: quantization={quantization!r}, off by {off:.2f} of the spread, "
            f"where {ALLOWED[quantization]:g} is allowed"
        )


def _rms(values):
    return np.sqrt(np.mean(np.square(values, dtype="float64")))


def runner(content):
    """Returns a function that runs the LiteRT file `content` (bytes), and the shape and dtype of its images."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        run = interpreter.get_signature_runner()
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"LiteRT cannot run the file: {error}") from error
    images = run.get_input_details()["images"]
    return run, tuple(images["shape"]), images["dtype"]


def _made_up(model, shape):
    return [to_input(model, sample_images(shape, seed=seed)) for seed in range(2)]
