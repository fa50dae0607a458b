"""`save_pretrained`: a folder that other libraries read, in the form of a repository on the hub."""

import json
import os
from pathlib import Path

import keras

from keras_cnv2.checkpoints.write import save_checkpoint
from keras_cnv2.files import new_folder
from keras_cnv2.keras_internals import all_layers
from keras_cnv2.models.stages import STEM
from keras_cnv2.pretrained import timm, transformers
from keras_cnv2.pretrained.card import card_of
from keras_cnv2.pretrained.facts import check_describable, facts_of

LAYOUTS = ("transformers", "timm", "keras")

# The files of the layouts. A folder that holds nothing else may be replaced.
WEIGHTS, MODEL, CONFIG, PREPROCESSOR, CARD = (
    "model.safetensors",
    "model.keras",
    "config.json",
    "preprocessor_config.json",
    "README.md",
)
ONNX = "onnx"
FILES = {WEIGHTS, MODEL, CONFIG, PREPROCESSOR, CARD, ONNX}


def save_pretrained(
    model: keras.Model,
    folder: str | os.PathLike,
    layout: str = "transformers",
    licence: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a model as a folder that transformers, timm or Keras read, as repositories on the hub have them.

    - "transformers": config.json, preprocessor_config.json and model.safetensors, for
      `transformers.pipeline("image-classification", folder)` and the `Auto...from_pretrained(folder)` classes.
    - "timm": config.json and model.safetensors, for `timm.create_model(f"local-dir:{folder}", pretrained=True)`.
    - "keras": model.keras, the whole model.

    Each has a README.md, the model card: the licence if it is known, and how the folder is used. With the first two
    layouts, other libraries get logits from images that they normalise themselves: the preprocessing and the
    classifier's activation become part of the configuration. `keras_cnv2.from_pretrained` reads all three, and
    `keras-cnv2 push FOLDER OWNER/NAME` uploads them.

    ```python
    keras_cnv2.save_pretrained(model, "mine")
    keras_cnv2.save_pretrained(model, "for_timm", layout="timm", licence="apache-2.0")
    ```

    Args:
        model: A `keras_cnv2.ConvNeXtV2` or `ConvNeXtV2Backbone`; with the layout "keras" also an FCMAE, a segmenter, a
            detector or a model of your own on an encoder of this package.
        folder: Path of the folder to write. Its parent must exist.
        layout: "transformers", "timm" or "keras".
        licence: Optional string, the hub's name of the licence of the weights, such as "apache-2.0". By default that of
            the published weights that the model was made from, if any.
        overwrite: Bool, whether to replace an existing folder that this function has written.

    Raises:
        ValueError: If an argument is out of range, or the layout cannot hold the model: the message says why.
        OSError: If the folder cannot be written, or there is something already. Nothing half-written is left.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {LAYOUTS}. Received: layout={layout!r}")
    facts = _facts(model, layout)
    with new_folder(folder, overwrite, replaceable=_is_ours) as temporary:
        if layout == "keras":
            model.save(temporary / MODEL)
        else:
            save_checkpoint(model, temporary / WEIGHTS, layout)
        for name, contents in configuration(facts, layout).items():
            (temporary / name).write_text(as_json(contents), "utf-8")
        (temporary / CARD).write_text(card_of(model, layout, facts, licence), "utf-8")


def _facts(model, layout):
    """Returns the `Facts` of a model that a layout can hold; `None` if the layout has no configuration."""
    if layout != "keras":
        check_describable(model, layout)
        LIBRARIES[layout].check(model)
        return facts_of(model)
    if not isinstance(model, keras.Model) or all(layer.name != STEM for layer in all_layers(model)):
        raise ValueError(f"The model must hold an encoder of this package. Received: model={model!r}")
    return None


LIBRARIES = {"transformers": transformers, "timm": timm}


def configuration(facts, layout):
    """Returns the configuration files of a layout, {name: contents}.

    Args:
        facts: `Facts`, or `None` for the layout "keras", which has no such files.
        layout: "transformers", "timm" or "keras".
    """
    if layout == "transformers":
        return {CONFIG: transformers.config(facts), PREPROCESSOR: transformers.preprocessor_config(facts)}
    return {CONFIG: timm.config(facts)} if layout == "timm" else {}


def as_json(contents):
    """Returns the text of a configuration file."""
    return json.dumps(contents, indent=2, ensure_ascii=False) + "\n"


def _is_ours(folder):
    """Whether a folder holds no other files than those that `save_pretrained` and `export_onnx` write."""
    names = {path.name for path in Path(folder).iterdir()}
    return CARD in names and names <= FILES
