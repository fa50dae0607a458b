"""Writes weights/README.md from the rows of the registry.

python -m weights.table
"""

from pathlib import Path

from keras_cnv2.checkpoints.registry import OFFICIAL, OURS
from keras_cnv2.files import replacing
from keras_cnv2.sizes import SIZES

README = Path(__file__).with_name("README.md")

TEXT = """# Published weights

<!-- Made by `python -m weights.table` from keras_cnv2/checkpoints/registry.py. -->

```python
model = keras_cnv2.ConvNeXtV2{size}(weights="{tag}")
```

downloads the weights on first use. "imagenet" is short for "fcmae_ft_in1k". `keras-cnv2 list` shows which checkpoints
are downloaded. Top-1 is the published accuracy on ImageNet-1K; a checkpoint without top-1 is an encoder from
pre-training, without a head. "Images" is the image size and the resize method of `keras_cnv2.load_image`. The weights
are Meta's and licensed {licences}: not for commercial use. `python -m weights.verify 000000039769.jpg`, with this
image of COCO val2017, compares them with their published logits; downloading all of them takes 12 GB.

| size | tag | parameters | images | top-1 | source | official file |
|---|---|---|---|---|---|---|
{rows}

## Our own

```python
model = keras_cnv2.ConvNeXtV2Atto(weights="cifar10")
```

These weights were trained by this project; their cards describe how. The files are part of a checkout, so no network is
needed. Top-1 is the accuracy on the dataset that the tag names.

| size | tag | parameters | images | top-1 | licence | file | card |
|---|---|---|---|---|---|---|---|
{own_rows}
"""


def table():
    """Returns the text of weights/README.md."""
    example = next(row for row in OFFICIAL if (row.size, row.image_size) == ("tiny", 384))
    licences = " and ".join(sorted({row.licence for row in OFFICIAL}))
    rows, own_rows = ("\n".join(map(line, rows)) for line, rows in ((_line, OFFICIAL), (_own_line, OURS)))
    return TEXT.format(size=example.size.capitalize(), tag=example.tag, licences=licences, rows=rows, own_rows=own_rows)


def _line(row):
    source = f"[{row.repository}](https://huggingface.co/{row.repository}/blob/main/{row.file})"
    return _cells(row, source, f"`{row.official_file}`")


def _own_line(row):
    return _cells(row, row.licence, f"`{row.name}.safetensors`", f"[{row.name}.md]({row.name}.md)")


def _cells(row, *more):
    cells = (
        row.size,
        f"`{row.tag}`",
        f"{_parameters(row) / 1e6:.1f} M",
        f"{row.image_size} {row.resize}",
        "" if row.top1 is None else f"{row.top1:.1f} %",
        *more,
    )
    return f"| {' | '.join(cells)} |"


def _parameters(row):
    """Returns the number of parameters. Ignores that a smaller stem has slightly fewer."""
    size = SIZES[row.size]
    norm, head = 2 * size.dims[-1], size.dims[-1] + 1
    classes = len(row.metadata["class_names"]) if row.has_head else 0
    return size.parameters - head * (1000 - classes) - (0 if row.has_head else norm)


if __name__ == "__main__":
    with replacing(README) as temporary:
        temporary.write_text(table())
