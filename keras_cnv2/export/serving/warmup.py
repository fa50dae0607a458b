"""Warm-up requests, which TensorFlow Serving runs before it serves a version, so that the first requests are fast."""

import math

import numpy as np

from keras_cnv2.models.pictures import IMAGE_SIZE

# Path in the folder of a version where the server looks for warm-up requests.
FILE = "assets.extra/tf_serving_warmup_requests"

# Signatures that are warmed up with every batch size; the others are warmed up with one image.
FREQUENT = ("serving_default", "serve_jpeg")

# Side in pixels of the image file for serve_jpeg. It can be small, because the first decoding is not slow.
PICTURE = 64


def write_warmup(folder, model, name, batch_sizes, max_pixels):
    """Writes a TFRecord file of requests for each signature of a SavedModel.

    Args:
        folder: Path of the SavedModel.
        model: The Keras model that was exported.
        name: Name of the model on the server.
        batch_sizes: List of ints, the batch sizes that the server uses.
        max_pixels: Int, height times width of the largest image that the SavedModel takes. Requests do not exceed it,
            because the server does not load a version if one of its warm-up requests fails.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from keras_cnv2.export.saved_model.write import system_errors

    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    with system_errors(path), tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in _signatures(folder).items():
            for size in batch_sizes if signature in FREQUENT else [1]:
                record = prediction_log_pb2.PredictionLog()
                request = record.predict_log.request
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                for alias, info in inputs.items():
                    request.inputs[alias].CopyFrom(_tensor(alias, info, model, size, max_pixels))
                writer.write(record.SerializeToString())


def _signatures(folder):
    """Returns the inputs of each signature of a SavedModel, {signature name: {input name: TensorInfo}}."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    return {name: dict(signatures[name].inputs) for name in sorted(signatures) if signatures[name].inputs}


def _tensor(alias, info, model, size, max_pixels):
    """Returns a TensorProto for one input, with `size` images."""
    import tensorflow as tf

    if info.dtype == tf.string.as_datatype_enum:
        return tf.make_tensor_proto([_picture()] * size)
    if alias == "hidden":
        return tf.make_tensor_proto(_masks(model, size))
    sides = [dim.size if dim.size > 0 else _open_side(model, max_pixels) for dim in info.tensor_shape.dim[1:]]
    # A TensorProto of a constant stores the value once, so a batch of grey images takes a few bytes.
    return tf.make_tensor_proto(128, tf.dtypes.as_dtype(info.dtype), [size, *sides])


def _open_side(model, max_pixels):
    """Returns the side of images for a signature with variable height and width."""
    return min(getattr(model, "image_size", None) or IMAGE_SIZE, math.isqrt(max_pixels))


def _masks(model, size):
    """Returns masks `(size, *grid)` that leave `model.visible` patches visible."""
    hidden = np.ones((size, *model.grid), "float32")
    hidden.reshape(size, -1)[:, : model.visible] = 0
    return hidden


def _picture():
    """Returns the bytes of a small JPEG file."""
    import tensorflow as tf

    ramp = np.linspace(0, 255, PICTURE)
    pixels = np.stack([np.add.outer(ramp, ramp) / 2, np.add.outer(ramp, -ramp) % 256, np.add.outer(-ramp, ramp) % 256])
    return tf.io.encode_jpeg(pixels.transpose(1, 2, 0).astype("uint8")).numpy()
