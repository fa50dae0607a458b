"""Publishes weights of finished runs of this project: writes a safetensors file and its model card into weights/.

python -m weights.publish --tag cifar10 PRETRAINING FINETUNING

The arguments are the folders of the runs, in the order in which they were trained. The classifier of the last run is
published. The command prints the values for the row in keras_cnv2/checkpoints/registry.py.
"""

import argparse
import hashlib
import json
import textwrap
from pathlib import Path

from keras_cnv2.checkpoints.write import save_checkpoint
from keras_cnv2.files import replacing
from keras_cnv2.pretrained.card import front_matter, licence_id
from keras_cnv2.restore import restore_model
from keras_cnv2.sizes import size_of

FOLDER = Path(__file__).parent
LICENCE = "Apache-2.0"

# Descriptions of data sets, which a run's folder does not contain.
DATA = {
    "cifar10": (
        "CIFAR-10 (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009): 32 x 32 photographs of "
        "10 classes. Trained on the 50,000 training images, tested on 8,000 of the 10,000 test images: the copy that "
        "was used contains no others. `tfds:cifar10` has all. More in [docs/cifar10.md](../docs/cifar10.md)."
    )
}

CARD = """{front}
# {name}

ConvNeXt V2 {size}, {parameters:,} parameters, {training}.

```python
import keras_cnv2

model = keras_cnv2.ConvNeXtV2{title}(weights="{tag}")
```

`keras-cnv2 predict PICTURE --weights {tag}` classifies an image. Images are {image_size} x {image_size} (resize method:
{resize}), RGB in 0..255; the model normalises them. The file has timm's tensor names. SHA-256:
`{sha256}`

## Data

{data}

## Recipe

{recipes}

## Figures

{figures}

## Licence

{licence}, like this project.
"""

# Entries of config.json that the card omits: they depend on the machine, or are in the card's text already.
UNTOLD = {"kind", "data", "validation_share", "max_unreadable", "weights", "found", "versions", "system"}
UNTOLD |= {"checkpoint_steps"}
VERSIONS = ("tensorflow", "keras")


def publish(folders, tag):
    """Writes the file and the card.

    Args:
        folders: Paths of the runs.
        tag: Tag of the weights, unique among those of their size; a key of `DATA`.

    Returns:
        Dict of the values for the registry's row.

    Raises:
        FileNotFoundError: If a run is not finished, or the last one has no classifier.
        ValueError: If the classifier does not have one of the eight published sizes.
    """
    runs = [_read(Path(folder)) for folder in folders]
    model = restore_model(Path(folders[-1]) / "classifier.keras")
    size = size_of(model.depths, model.dims)
    if size is None:
        raise ValueError(f"Only the eight sizes can be published. Received: depths={model.depths}, dims={model.dims}")
    path = FOLDER / f"convnextv2_{size}.{tag}.safetensors"
    with replacing(path) as file, replacing(path.with_suffix(".md")) as card:
        save_checkpoint(model, file, naming="timm")
        row = _row(model, runs, hashlib.sha256(file.read_bytes()).hexdigest())
        card.write_text(_card(model, runs, size, tag, row))
    return row


def _row(model, runs, digest):
    _, metrics = runs[-1]
    return {
        "top1": round(100 * metrics["top1"], 2),
        "sha256": digest,
        "stem_stride": model.stem_stride,
        "image_size": model.image_size,
        "resize": model.resize,
        "class_names": model.class_names,
    }


def _card(model, runs, size, tag, row):
    kinds = {"Pretraining": "pre-trained with FCMAE", "Finetuning": "fine-tuned"}
    return CARD.format(
        **row,
        name=f"convnextv2_{size}.{tag}",
        size=size.capitalize(),
        title=size.capitalize(),
        tag=tag,
        parameters=model.count_params(),
        training=", then ".join(kinds[config["kind"]] for config, _ in runs),
        data=textwrap.fill(DATA[tag], 120),
        recipes="\n\n".join(_recipe(config) for config, _ in runs),
        figures=_figures(runs),
        licence=LICENCE,
        front=front_matter("keras", "image-classification", licence_id(LICENCE)),
    )


def _read(folder):
    """Reads a run's configuration and metrics."""
    return tuple(json.loads((folder / name).read_text()) for name in ("config.json", "metrics.json"))


def _recipe(config):
    """Returns a Markdown table of the recipe's fields, without those that are off or in `UNTOLD`."""
    told = [name for name, value in config.items() if value is not None and value is not False and name not in UNTOLD]
    rows = "\n".join(f"| {name} | {_shown(config[name])} |" for name in told)
    return f"| {config['kind'].lower()} | |\n|---|---|\n{rows}"


def _shown(value):
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def _figures(runs):
    config, metrics = runs[-1]
    minutes = " and ".join(f"{metrics['seconds'] / 60:.0f}" for _, metrics in runs)
    versions = ", ".join(f"{name} {config['versions'][name]}" for name in VERSIONS if name in config["versions"])
    classes = "\n".join(f"| {name} | {accuracy:.1%} |" for name, accuracy in metrics["classes"].items())
    return (
        f"Top-1 {100 * metrics['top1']:.2f} %, top-5 {100 * metrics['top5']:.2f} % of {metrics['images']:,} images.\n"
        f"Trained in {minutes} minutes, while other programs ran. Machine: {config['system']['machine']}\n"
        f"({versions}).\n\n"
        f"| class | accuracy |\n|---|---|\n{classes}"
    )


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m weights.publish", description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--tag", required=True, choices=DATA)
    args = parser.parse_args(argv)
    for name, value in publish(args.runs, args.tag).items():
        print(f"{name} = {value!r}")


if __name__ == "__main__":
    main()
