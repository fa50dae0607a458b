"""Writes a model's weights to a file that PyTorch implementations read."""

import json
import os
from pathlib import Path

import keras

from keras_cnv2.checkpoints.metadata import KEY, metadata_of
from keras_cnv2.checkpoints.named_arrays import named_arrays, with_names
from keras_cnv2.files import replacing


def save_checkpoint(model: keras.Model, path: str | os.PathLike, naming: str = "official") -> None:
    """Writes a safetensors file that the official code, timm, transformers and `load_checkpoint` read.

    Its metadata hold an entry "keras_cnv2" in JSON, with the class names, the image size and way to resize, the
    activation unless it is the default one ("softmax", or "sigmoid" for one class; "linear" stands for logits), whether
    the model takes normalised images, and the published file that the weights come from.

    ```python
    keras_cnv2.save_checkpoint(model, "finetuned.safetensors")
    keras_cnv2.save_checkpoint(model, "for_timm.safetensors", naming="timm")
    ```

    Args:
        model: A classifier, backbone or FCMAE; or a model of your own on an encoder of this package, of which only the
            encoder is written, and a log line names the layers that are left out.
        path: Path that ends in `.safetensors`. An existing file is replaced once the new one is complete.
        naming: As in `keras_cnv2.state_dict`.

    Raises:
        ValueError: If `path` has another suffix, or for the reasons given in `keras_cnv2.state_dict`.
        OSError: If the file cannot be written; an existing file stays unchanged.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"The path of a checkpoint must end in .safetensors. Received: {str(path)!r}")
    part, variables = with_names(model)
    tensors = named_arrays(part, variables, naming)
    metadata = {"format": "pt", KEY: json.dumps(metadata_of(part))}  # transformers requires "pt"
    with replacing(path) as temporary:
        write_tensors(temporary, tensors, metadata)


def write_tensors(path, tensors, metadata):
    """Writes a safetensors file.

    Args:
        path: Path of the file.
        tensors: Dict from names to arrays.
        metadata: Dict of strings.

    Raises:
        OSError: If the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path.touch()
    mode = path.stat().st_mode  # the usual mode of new files; safetensors makes files that only their owner can read
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(f"The file cannot be written: {error}. Received: {path}") from error
    path.chmod(mode)
