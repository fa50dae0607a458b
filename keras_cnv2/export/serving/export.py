"""`export_serving`: publishes versions of a model in a folder for TensorFlow Serving."""

import contextlib
import os
import re
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import keras

from keras_cnv2.arguments import is_positive_int, positive_int
from keras_cnv2.errors import ExportError
from keras_cnv2.export.serving.warmup import write_warmup
from keras_cnv2.files import replacing

# Files of a serving folder in addition to the versions. They are written once and never overwritten, because users may
# edit them.
FILES = {
    "models.config": "config/models.config",
    "batching.config": "config/batching.config",
    "monitoring.config": "config/monitoring.config",
    "docker-compose.yml": "docker-compose.yml",
    "client.py": "client.py",
    "README.md": "README.md",
}
MODELS, BATCHING = FILES["models.config"], FILES["batching.config"]

# Prefix of temporary folders. TensorFlow Serving ignores them: it loads only folders whose names are 64-bit numbers.
STAGING = ".publishing-"
LARGEST_VERSION = 2**63 - 1


def export_serving(
    model: keras.Model,
    path: str | os.PathLike,
    name: str = "convnextv2",
    version: int | None = None,
    max_batch_size: int = 32,
    **saved_model_options: Any,
) -> Path:
    """Publishes a model as a new version in a folder for TensorFlow Serving.

    ```python
    keras_cnv2.export_serving(model, "serving")  # docker compose up in there serves it
    keras_cnv2.export_serving(better, "serving")  # a running server takes this one instead
    ```

    In addition to `model/<version>`, a new folder gets the server's configuration in `config`, a `docker-compose.yml`,
    a `client.py` that sends image files to the server, and a `README.md` that explains these files. In an existing
    serving folder, only missing files are added; the others are not changed.

    The version is a SavedModel, see `keras_cnv2.export_saved_model`, with warm-up requests for the server. The folder
    of the version appears under its number only once it is complete. Before that, and after an error, no part of it
    is visible.

    Args:
        model: A `keras_cnv2.ConvNeXtV2`, `ConvNeXtV2Backbone`, `FCMAE` or detector, or a functional or sequential model
            of your own that contains one of the first two.
        path: Path of the serving folder: a new, an empty or an existing one.
        name: Name of the model on the server, made of letters, digits, "_", "-" and ".".
        version: Int, the number of the version. By default one more than the highest existing one.
        max_batch_size: Int, how many images the server computes at once, and how many a request may contain. It is
            written to `config/batching.config` of a new folder; in an existing folder, the value in that file is used.
        **saved_model_options: Further arguments of `keras_cnv2.export_saved_model`.

    Returns:
        The path of the version's folder.

    Raises:
        ValueError: If the model is not of a supported kind, an argument is out of range, or the folder serves another
            model.
        ExportError: If tensorflow-serving-api is not installed, or for the reasons in `keras_cnv2.export_saved_model`.
        OSError: If the version exists, the path is not a serving folder, or it cannot be written.
    """
    _check(model, name, version, max_batch_size, saved_model_options)
    path = Path(path)
    extends = _check_folder(path, name)
    if version in _versions(path):
        raise FileExistsError(f"This version exists: versions are never replaced. Received: version={version}")
    largest = _batch_size_in(path / BATCHING) or max_batch_size

    from keras_cnv2.export.saved_model.export import export_saved_model
    from keras_cnv2.images.header import MAX_PIXELS

    with tempfile.TemporaryDirectory(prefix=STAGING, dir=path / "model" if extends else path.parent) as staging:
        staged = Path(staging) / "version"
        export_saved_model(model, staged, **saved_model_options)
        max_pixels = saved_model_options.get("max_pixels", MAX_PIXELS)
        write_warmup(staged, model, name, _batch_sizes(largest), max_pixels)
        values = {"@NAME@": name, "@MAX_BATCH_SIZE@": str(largest)}
        if not extends and (published := _create(path, Path(staging) / "folder", staged, version or 1, values)):
            return published
        _add_files(path, values)
        return _publish(staged, path, version)


def _check(model, name, version, max_batch_size, options):
    try:
        import tensorflow_serving.apis  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f'Serving folders are made with tensorflow-serving-api: pip install "keras_cnv2[serving]" ({error})'
        ) from error
    from keras_cnv2.export.kinds.kind import kind_for

    kind_for(model, "serving")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(f'name must be of letters, digits, "_", "-" and ".". Received: name={name!r}')
    if version is not None and not (is_positive_int(version) and version <= LARGEST_VERSION):
        raise ValueError(f"version must be None or a positive int of 64 bits. Received: version={version!r}")
    positive_int("max_batch_size", max_batch_size)
    if "overwrite" in options:
        raise ValueError("Versions are never replaced: publish the next one. Received: overwrite")


def _check_folder(path, name):
    """Whether `path` is an existing serving folder of the model `name`; false if the folder has yet to be made.

    Raises:
        OSError: If the parent folder does not exist, or `path` is something else than a serving folder.
        ValueError: If the folder serves another model.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no such folder to write to. Received: {path}")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    if not (path / MODELS).is_file() or not (path / "model").is_dir():
        raise FileExistsError(
            f"The path exists but is not a serving folder, which has {MODELS} and a folder `model`. Received: {path}"
        )
    names = _names_in(path / MODELS)
    if name not in names:
        raise ValueError(f"{path / MODELS} serves {', '.join(names) or 'nothing'}. Received: name={name!r}")
    return True


def _names_in(config):
    """Returns the names of the models in a models.config."""
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    try:
        parsed = text_format.Parse(config.read_text("utf-8"), model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise ValueError(f"The file is not a ModelServerConfig: {error}. Received: {config}") from error
    return [model.name for model in parsed.model_config_list.config]


def _versions(path):
    """Returns the set of version numbers in a serving folder."""
    model = path / "model"
    return {int(entry.name) for entry in model.iterdir() if entry.name.isdecimal()} if model.is_dir() else set()


def _batch_size_in(batching):
    """Returns `max_batch_size` of a batching.config, `None` if there is no such file or setting."""
    text = re.sub("#.*", "", batching.read_text("utf-8")) if batching.exists() else ""
    stated = re.search(r"max_batch_size\s*:?\s*\{\s*value\s*:\s*(\d+)", text)
    return stated and max(1, int(stated[1]))


def _batch_sizes(largest):
    """Returns the powers of two below `largest`, and `largest`."""
    return [2**power for power in range((largest - 1).bit_length())] + [largest]


def _create(path, folder, staged, version, values):
    """Creates the serving folder atomically, by renaming. Returns `None` if another process was faster."""
    (folder / "model").mkdir(parents=True)
    _add_files(folder, values)
    inside = folder / "model" / str(version)
    os.rename(staged, inside)
    with contextlib.suppress(OSError):  # the folder does not exist, or is not empty
        path.rmdir()  # Windows does not rename onto an existing folder, not even an empty one
    try:
        os.rename(folder, path)
    except OSError:
        if not (path / MODELS).is_file():
            raise
        os.rename(inside, staged)
        return None
    return path / "model" / str(version)


def _add_files(path, values):
    """Writes those of `FILES` that are missing, with the placeholders replaced by `values`."""
    for name, target in FILES.items():
        if (path / target).exists():  # users may have edited it
            continue
        text = files("keras_cnv2.export.serving").joinpath("files", name).read_text("utf-8")
        for placeholder, value in values.items():
            text = text.replace(placeholder, value)
        (path / target).parent.mkdir(exist_ok=True)
        with replacing(path / target) as temporary:
            temporary.write_text(text, "utf-8")


def _publish(staged, path, version):
    """Renames the folder of a complete version to its number."""
    while True:
        number = version or max(_versions(path), default=0) + 1
        target = path / "model" / str(number)
        try:
            os.rename(staged, target)  # fails if the version exists, because its folder is not empty
        except OSError as error:
            if not target.exists():
                raise
            if version:
                raise FileExistsError(
                    f"This version exists: versions are never replaced. Received: version={version}"
                ) from error
        else:
            return target
