"""A folder in the form that transformers, timm and `save_pretrained` give it: here, or as a repository of the hub.

It holds weights and, next to them, their configuration. Only files with the names in this module are read, and no code.
"""

import logging
import os
import re
from pathlib import Path

from keras_cnv2.checkpoints.configuration_timm import from_timm
from keras_cnv2.checkpoints.configuration_transformers import MODEL_TYPE, from_transformers
from keras_cnv2.checkpoints.hub import Place, find
from keras_cnv2.checkpoints.read_index import files_in
from keras_cnv2.checkpoints.read_json import read_json
from keras_cnv2.checkpoints.registry import REVISION
from keras_cnv2.errors import CheckpointError

logger = logging.getLogger(__name__)

CONFIG, PREPROCESSOR, CARD = "config.json", "preprocessor_config.json", "README.md"

# The weights, in the order in which they are looked for. A Keras model describes itself.
TENSORS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
KERAS = "model.keras"

SCHEME = "hf://"
REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(.+))?", re.ASCII)

# Owner of the repositories with Meta's own weights in transformers' form.
META = "facebook/"

# In bytes, of a card: only its beginning is read, which names the licence.
CARD_LIMIT = 1 << 20


class LocalFolder:
    """A folder on this machine."""

    def __init__(self, path):
        self.path = Path(path)
        self.name = str(path)

    def get(self, file):
        """Returns the path of a file in the folder, or `None`."""
        path = self.path / file
        return path if path.is_file() else None

    def origin(self, path):
        """Returns the metadata "pretrained" of a file of weights: none for the user's own."""
        return None


class Repository:
    """A repository of the hub.

    Args:
        source: "hf://owner/name", optionally followed by "@" and a commit, tag or branch.

    Raises:
        CheckpointError: If this is not the form of `source`.
    """

    def __init__(self, source):
        found = REPOSITORY.fullmatch(source.removeprefix(SCHEME))
        if not found or ".." in found[1] or (found[2] and not REVISION.fullmatch(found[2])):
            raise CheckpointError(
                f"A repository of the hub is given as hf://owner/name or hf://owner/name@revision. Received: {source!r}"
            )
        self.name = source
        self.repository, self.revision = found.groups()
        self._downloads = {}

    def get(self, file):
        """Returns the path of a file of the repository in the hub's cache, or `None` if the repository has none.

        Raises:
            CheckpointError: If it cannot be downloaded.
        """
        if file not in self._downloads:
            found = self._downloads[file] = find(Place(self.name, self.repository, file, self.revision))
            if found:
                self.revision = found.commit  # all files are of one commit
        found = self._downloads[file]
        return found and found.path

    def origin(self, path):
        """Returns the metadata "pretrained" of a file of weights, see `keras_cnv2.checkpoints.metadata`."""
        file, found = next((file, found) for file, found in self._downloads.items() if found and found.path == path)
        return {"repository": self.repository, "file": file, "commit": found.commit, "sha256": found.sha256}


def is_repository(source):
    """Whether `source` names a repository of the hub."""
    return isinstance(source, str) and source.startswith(SCHEME)


def is_hub_folder(path):
    """Whether `path`, a string or a path, is a folder with a file that this module reads."""
    is_path = isinstance(path, (str, os.PathLike))
    return is_path and any(os.path.isfile(os.path.join(path, file)) for file in (*TENSORS, KERAS))


def folder_of(source):
    """Returns the folder that a source is, or that the configuration of a source stands in.

    Args:
        source: Name of a repository, path of a folder, or path of a file of weights.

    Returns:
        A `Repository` or a `LocalFolder`; `None` for a file under another name than those of `TENSORS`.
    """
    if is_repository(source):
        return Repository(source)
    if is_hub_folder(source):
        return LocalFolder(source)
    return LocalFolder(Path(source).parent) if Path(source).name in TENSORS else None


def configuration_of(folder):
    """Returns the `Configuration` in a folder, or `None` if it has no config.json.

    Raises:
        CheckpointError: If it is invalid, or describes no ConvNeXt V2.
    """
    path = folder.get(CONFIG)
    if not path:
        return None
    try:
        return _configuration(folder, read_json(path))
    except CheckpointError as error:
        raise error if str(path) in str(error) else CheckpointError(f"{folder.name}: {error}") from error


def _configuration(folder, config):
    model_type = config.get("model_type")
    if model_type in (None, "timm_wrapper") and ("architecture" in config or "pretrained_cfg" in config):
        return from_timm(config)
    if model_type is not None:
        preprocessor = folder.get(PREPROCESSOR)
        meta = folder.name.removeprefix(SCHEME).startswith(META) and is_repository(folder.name)
        return from_transformers(config, preprocessor and read_json(preprocessor), meta)
    if "registered_name" in config or "class_name" in config:
        raise CheckpointError(
            f"{CONFIG} is of a Keras or KerasHub model: load it with keras_hub.models.Backbone.from_preset, or give a "
            f"folder with a {KERAS}. Received: {str(config.get('registered_name'))[:200]}"
        )
    raise CheckpointError(
        f'{CONFIG} is neither of transformers ("model_type": "{MODEL_TYPE}") nor of timm ("architecture": '
        f'"convnextv2_..."). Received: {str([*config])[:200]}'
    )


def weights_in(folder, has_configuration):
    """Returns the path of the weights in a folder; of several files, the path of their index.

    Args:
        folder: `LocalFolder` or `Repository`.
        has_configuration: Whether it has a config.json, which then describes the weights.

    Raises:
        CheckpointError: If there are no weights.
    """
    order = (*TENSORS, KERAS) if has_configuration else (KERAS, *TENSORS)
    for file in order:
        if path := folder.get(file):
            parts = files_in(path) if file.endswith(".index.json") else ()
            if missing := [part for part in parts if not folder.get(part)]:
                raise CheckpointError(f"{path} names files that are missing. Received: {', '.join(missing[:5])}")
            return path
    raise CheckpointError(
        f"There are no weights in this folder or repository; it must have one of {', '.join(order)}. "
        f"Received: {folder.name}"
    )


def tell_licence(folder, configuration):
    """Logs one line with the licence of the weights and their card, as far as a folder names them."""
    card = folder.get(CARD)
    licence = (configuration and configuration.licence) or (card and _licence_in(card))
    if card or licence:
        logger.warning(
            "%s: the licence of these weights is %s; card: %s", folder.name, licence or "not named", card or "none"
        )


def _licence_in(card):
    """The licence that the card of a repository names at its top, in YAML; or `None`."""
    with open(card, encoding="utf-8", errors="replace") as file:
        top = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", file.read(CARD_LIMIT), re.DOTALL)
    names = (
        {key: re.search(rf"^{key}:[ \t]*(\S[^\n]*?)\s*$", top[1], re.MULTILINE) for key in ("license_name", "license")}
        if top
        else {}
    )
    found = next((match[1].strip("\"'") for match in names.values() if match), None)
    return found and found[:100]
