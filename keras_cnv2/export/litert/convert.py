"""Converts a function of images to a LiteRT file in one of four precisions, and edits such files."""

import warnings

import numpy as np

from keras_cnv2.errors import ExportError

# Operations whose activations stay float32 because int8 makes them inaccurate: the statistics of GRN and LayerNorm,
# residual sums, scores and probabilities. GELU stays float32 because it has no fast int8 kernel.
FLOAT_OPERATIONS = [
    *("SQUARE", "SUM", "SQRT", "DIV", "SQUARED_DIFFERENCE", "RSQRT", "MEAN", "MUL", "ADD", "SUB", "NEG"),
    *("GELU", "FULLY_CONNECTED", "SOFTMAX", "LOGISTIC"),
]


def convert(function, weights, quantization, representative):
    """Converts a function of images.

    Args:
        function: Concrete `tf.function` of one tensor, which returns a dict of tensors.
        weights: List of the variables that it reads.
        quantization: `None`, "float16", "dynamic" or "int8".
        representative: List of batches to calibrate "int8" with, of the function's input dtype. Otherwise unused.

    Returns:
        The bytes of the file.

    Raises:
        ExportError: If the conversion fails, for example because an operation is not a builtin one.
    """
    import tensorflow as tf

    owner = tf.Module()
    owner.weights = weights
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], owner)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quantization in ("float16", "int8"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        content = _convert_to_int8(converter, representative) if quantization == "int8" else converter.convert()
    except Exception as error:  # the converter raises many classes, some from private modules
        raise ExportError(f"TensorFlow's converter to LiteRT fails: {error}"[:2000]) from error
    return with_int8_weights(content, ("CONV_2D", "FULLY_CONNECTED")) if quantization == "dynamic" else content


def _convert_to_int8(converter, representative):
    """Quantizes convolutions to int8 with calibrated activations, except the stem; of dense layers only the weights.

    The stem reads pixels and stays float32.
    """
    import tensorflow as tf

    converter.representative_dataset = lambda: ([batch] for batch in representative)
    options = tf.lite.experimental.QuantizationDebugOptions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the debugger uses the deprecated tf.lite.Interpreter
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_options=options(denylisted_ops=FLOAT_OPERATIONS)
        )
        stem = _first_convolution(debugger.calibrated_model)
        debugger.options = options(denylisted_ops=FLOAT_OPERATIONS, denylisted_nodes=[stem])
    return with_int8_weights(debugger.get_nondebug_quantized_model(), ("FULLY_CONNECTED",))


def _first_convolution(content):
    """Returns the name of the output of the first convolution in a LiteRT file (bytes)."""
    graph = read(content)
    return next(
        graph.subgraphs[0].tensors[operator.outputs[0]].name.decode()
        for operator in graph.subgraphs[0].operators
        if operation(graph, operator) == "CONV_2D"
    )


def with_int8_weights(content, operations):
    """Quantizes the weights of the named operations in a LiteRT file to int8, with one scale per output channel.

    LiteRT quantizes their activations at run time, with one scale per image. TensorFlow's converter could do the same,
    but it would quantize depthwise convolutions too, for which XNNPACK has no such kernel: the model would be split
    into ten partitions instead of one.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = read(content)
    tensors, replaced = graph.subgraphs[0].tensors, set()
    for operator in graph.subgraphs[0].operators:
        name = operation(graph, operator)
        if name not in operations:
            continue
        tensor = tensors[operator.inputs[1]]
        weights = np.frombuffer(graph.buffers[tensor.buffer].data, "float32").reshape(tensor.shape)
        scales = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / np.float32(127)
        scales[scales == 0] = 1
        quantized = np.round(weights / scales).astype("int8")
        replaced.add(tensor.buffer)  # not overwritten, because tensors of equal values share a buffer
        tensor.buffer = len(graph.buffers)
        graph.buffers.append(schema.BufferT(data=quantized.view("uint8").ravel()))
        tensor.type = schema.TensorType.INT8
        tensor.quantization = schema.QuantizationParametersT(
            scale=scales.ravel(), zeroPoint=np.zeros(scales.size, "int64"), quantizedDimension=0
        )
        if name == "FULLY_CONNECTED":
            operator.builtinOptions.asymmetricQuantizeInputs = True
        # The first versions of these operations that take float inputs with per-channel int8 weights.
        code = graph.operatorCodes[operator.opcodeIndex]
        code.version = max(code.version, {"CONV_2D": 5, "FULLY_CONNECTED": 12}[name])
    for index in replaced - {tensor.buffer for tensor in tensors}:
        graph.buffers[index].data = None
    return write(graph)


def read(content):
    """Parses the bytes of a LiteRT file and returns a `ModelT` object."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def write(graph):
    """Returns the bytes of a LiteRT file; the inverse of `read`."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(graph.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operation(graph, operator):
    """Returns the name of an operator's operation, such as "CONV_2D" or "CUSTOM"."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.opcode_to_name(graph, operator.opcodeIndex)
