"""Requests that TensorFlow Serving runs before a version takes part: the first real ones are as fast as the rest."""

import math

import numpy as np

from keras_cnv2.models.pictures import IMAGE_SIZE

# In the folder of a version, where the server looks for it.
FILE = "assets.extra/tf_serving_warmup_requests"

# Signatures that come with every batch size; the others, with one image.
FREQUENT = ("serving_default", "serve_jpeg")

# The side of the picture for serve_jpeg: decoding is not what takes long the first time.
PICTURE = 64


def write_warmup(folder, model, name, batch_sizes, max_pixels):
    """Writes a TFRecord of requests for each signature of a SavedModel.

    Args:
        folder: Path of the SavedModel.
        model: The Keras model that it is of.
        name: Of the model at the server.
        batch_sizes: List of ints, those that the server makes batches of.
        max_pixels: Int, of the largest image that the SavedModel takes. The server does not load a version if one of
            these requests fails.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from keras_cnv2.export.saved_model.graphs import system_errors

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
    """{name: {alias: TensorInfo}} of the inputs of each signature."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    return {name: dict(signatures[name].inputs) for name in sorted(signatures) if signatures[name].inputs}


def _tensor(alias, info, model, size, max_pixels):
    """A TensorProto for an input, of `size` images."""
    import tensorflow as tf

    if info.dtype == tf.string.as_datatype_enum:
        return tf.make_tensor_proto([_picture()] * size)
    if alias == "hidden":
        return tf.make_tensor_proto(_masks(model, size))
    sides = [dim.size if dim.size > 0 else _open_side(model, max_pixels) for dim in info.tensor_shape.dim[1:]]
    # One value stands for all: a batch of grey images takes a few bytes.
    return tf.make_tensor_proto(128, tf.dtypes.as_dtype(info.dtype), [size, *sides])


def _open_side(model, max_pixels):
    """The side of images where a signature leaves it open."""
    return min(getattr(model, "image_size", None) or IMAGE_SIZE, math.isqrt(max_pixels))


def _masks(model, size):
    """Masks that leave as many patches visible as the FCMAE wants."""
    hidden = np.ones((size, *model.grid), "float32")
    hidden.reshape(size, -1)[:, : model.visible] = 0
    return hidden


def _picture():
    """The bytes of a small JPEG."""
    import tensorflow as tf

    ramp = np.linspace(0, 255, PICTURE)
    pixels = np.stack([np.add.outer(ramp, ramp) / 2, np.add.outer(ramp, -ramp) % 256, np.add.outer(-ramp, ramp) % 256])
    return tf.io.encode_jpeg(pixels.transpose(1, 2, 0).astype("uint8")).numpy()
