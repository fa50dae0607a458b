"""README.md of a repository: the model card, with the facts that the hub reads in front."""

import json

from keras_cnv2.checkpoints.registry import CHECKPOINTS
from keras_cnv2.detection.detector import is_detector
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.models.heads import classes_of
from keras_cnv2.segmentation.deeplab import is_deeplab
from keras_cnv2.segmentation.upernet import UPerNet
from keras_cnv2.sizes import size_of
from keras_cnv2.terminal import printable

TAGS = ("convnextv2", "keras_cnv2")

CARD = """{front}
# {title}

{sentence} Written with keras_cnv2, for {library}.

```{language}
{usage}
```
{origin}"""

USAGE = {
    "transformers": {
        True: """from transformers import pipeline

classify = pipeline("image-classification", "FOLDER")
classify("photo.jpg")  # a list of labels with their scores""",
        False: """from transformers import AutoModel

encoder = AutoModel.from_pretrained("FOLDER")""",
    },
    "transformers.js": {
        True: """import { pipeline } from "@huggingface/transformers";

const classify = await pipeline("image-classification", "FOLDER");
await classify("photo.jpg");  // a list of labels with their scores""",
    },
    "timm": {
        True: """import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True)  # on the hub: "hf-hub:OWNER/NAME"
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))""",
    },
    "keras": {
        True: """import keras
import keras_cnv2  # its layers

model = keras.saving.load_model("FOLDER/model.keras")""",
    },
}


def front_matter(library, pipeline, licence=None, base=None, tags=()):
    """Returns the YAML at the head of a card.

    Args:
        library: String, the hub's name of the library that reads the files.
        pipeline: String, the hub's name of the task.
        licence: Optional string, the hub's name of the licence.
        base: Optional string, the repository that the weights were made from.
        tags: Further tags, strings.
    """
    facts = {"license": licence, "library_name": library, "pipeline_tag": pipeline, "base_model": base}
    lines = [f"{name}: {_scalar(value)}" for name, value in facts.items() if value]
    return "\n".join(["---", *lines, *(["tags:"] if tags else []), *(f"- {tag}" for tag in tags), "---", ""])


def _scalar(text):
    """A string in YAML: in quotes unless it is made of letters, digits and a few signs."""
    return text if text.replace("-", "").replace(".", "").replace("_", "").isalnum() else json.dumps(text)


def licence_id(licence):
    """The hub's name of a licence: "cc-by-nc-4.0" for "CC BY-NC 4.0"."""
    return licence.lower().replace(" ", "-")


def card_of(model, layout, facts=None, licence=None):
    """Returns the card of a model.

    Args:
        model: The model.
        layout: "transformers", "transformers.js", "timm" or "keras".
        facts: Optional `Facts`, for a classifier or backbone.
        licence: Optional string, the hub's name of the licence. By default that of the published weights that the
            model's come from.
    """
    origin = getattr(model, "pretrained", None) or {}
    row = next((row for row in CHECKPOINTS if row.repository == origin.get("repository")), None)
    licence = licence or (licence_id(row.licence) if row else None)
    usages = USAGE[layout]
    usage = usages.get(classes_of(model) is not None, usages[True])
    base = origin.get("repository")
    return CARD.format(
        front=front_matter(layout, pipeline_of(model), licence, base, TAGS),
        title=_title(model),
        sentence=_sentence(model, facts),
        library=layout.capitalize() if layout == "keras" else layout,
        language="js" if layout == "transformers.js" else "python",
        usage=usage,
        origin=_origin(origin, row),
    )


def pipeline_of(model):
    """The hub's name of the task of a model."""
    if is_detector(model):
        return "object-detection"
    if isinstance(model, UPerNet) or is_deeplab(model):
        return "image-segmentation"
    if not isinstance(model, FCMAE) and classes_of(model) is not None:
        return "image-classification"
    return "image-feature-extraction"


def _title(model):
    encoder = getattr(model, "backbone", model)
    depths, dims = getattr(encoder, "depths", None), getattr(encoder, "dims", None)
    if depths is None:
        return "A model on ConvNeXt V2"
    size = size_of(depths, dims)
    return f"ConvNeXt V2 {size}" if size else f"ConvNeXt V2, depths {_listed(depths)}, dims {_listed(dims)}"


def _sentence(model, facts):
    parts = [f"{model.count_params():,} parameters"]
    if classes := not isinstance(model, FCMAE) and classes_of(model):
        parts.append(f"{classes} classes")
    if facts:
        height, width = facts.sides
        parts.append(
            f"images of {height} x {width} pixels with {facts.channels} channels (resize method: {facts.resize}), "
            f"mean {_listed(facts.mean)} and standard deviation {_listed(facts.std)} of values in 0..1"
        )
    return f"{', '.join(parts)}."


def _listed(values):
    return ", ".join(f"{value:g}" for value in values)


def _origin(origin, row):
    """A paragraph on the published weights that the model's come from; empty if it has none."""
    if not origin.get("repository"):
        return ""
    at = f" at commit {printable(origin['commit'])}" if origin.get("commit") else ""
    licence = f", whose licence is {row.licence}" if row else ""
    return f"\nThe weights are, or were trained from, those of `{printable(origin['repository'])}`{at}{licence}.\n"
