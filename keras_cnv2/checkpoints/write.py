"""A model's weights to a file that PyTorch users read."""

import json
import os
from pathlib import Path

import keras

from keras_cnv2.checkpoints.convert import named_arrays, with_names
from keras_cnv2.checkpoints.metadata import KEY, metadata_of
from keras_cnv2.files import replacing


def save_checkpoint(model: keras.Model, path: str | os.PathLike, naming: str = "official") -> None:
    """Writes a safetensors file that PyTorch users, timm, transformers and `load_checkpoint` read.

    The names of the classes, how pictures become images, the name of an activation other than "softmax" (of one class,
    "sigmoid"; "linear" for logits), and that images are normalised already, go into its metadata, under "keras_cnv2",
    as JSON.

    Args:
        model: A classifier, backbone or FCMAE. Of a model of your own on one of our encoders, the encoder is written,
            and a log line says what is left out.
        path: Path that ends in `.safetensors`. A file that is there is replaced when the new one is whole.
        naming: As in `keras_cnv2.state_dict`.

    Raises:
        ValueError: If the path or the naming is none of these.
        OSError: If the file cannot be written; what was there is left as it was.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"A checkpoint's path ends in .safetensors. Received: {str(path)!r}")
    part, variables = with_names(model)
    tensors = named_arrays(part, variables, naming)
    metadata = {"format": "pt", KEY: json.dumps(metadata_of(part))}  # "pt": what transformers asks for
    with replacing(path) as temporary:
        write_tensors(temporary, tensors, metadata)


def write_tensors(path, tensors, metadata):
    """Writes a safetensors file.

    Args:
        path: Of the file.
        tensors: Dict from names to arrays.
        metadata: Dict of strings.

    Raises:
        OSError: If the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path.touch()
    mode = path.stat().st_mode  # of any new file here; that of safetensors is for its owner alone
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(f"The file cannot be written: {error}. Received: {path}") from error
    path.chmod(mode)
