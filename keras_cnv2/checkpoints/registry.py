"""The published checkpoints, one row each, with all facts about them except the weights."""

import re
from dataclasses import dataclass, replace

from keras_cnv2.checkpoints.read import READERS
from keras_cnv2.errors import CheckpointError
from keras_cnv2.images.classes import imagenet_classes
from keras_cnv2.images.pictures import default_resize
from keras_cnv2.sizes import SIZES


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint.

    Args:
        size: Name of the size, "atto" to "huge".
        tag: Name of the checkpoint, unique within its size.
        image_size: Side in pixels of the images it was evaluated on.
        resize: How image files are resized to this size, "crop" or "squash".
        top1: Published accuracy in percent, on ImageNet-1K or the dataset that the tag names; `None` for encoders.
        has_head: Whether it is a classifier.
        repository: Repository on the Hugging Face hub.
        file: File in the repository.
        official_file: Name of the authors' own file.
        licence: Licence of the weights.
        logits: The first five published logits on the image that `keras-cnv2 verify` asks for, or `None`.
        stem_stride: Stride of the stem.
        class_names: The names of the classes, by default ImageNet's.
        revision: Commit, tag or branch of the repository; `None` for the newest commit.
        sha256: Checksum of the file, or `None` if it is not known. `keras-cnv2 verify` prints revision and checksum.
    """

    size: str
    tag: str
    image_size: int
    resize: str
    top1: float | None
    has_head: bool
    repository: str
    file: str
    official_file: str
    licence: str
    logits: tuple[float, ...] | None
    stem_stride: int = 4
    class_names: tuple[str, ...] | None = None
    revision: str | None = None
    sha256: str | None = None

    @property
    def name(self):
        return self.repository.rpartition("/")[2]

    @property
    def metadata(self):
        """The metadata of the weights, see `keras_cnv2.checkpoints.metadata`."""
        class_names = {"class_names": self.class_names or imagenet_classes()} if self.has_head else {}
        return {**class_names, "image_size": self.image_size, "resize": self.resize}


def _row(size, tag, image_size, official, top1=None, logits=None, revision=None, sha256=None):
    return Checkpoint(
        size=size,
        tag=tag,
        image_size=image_size,
        resize=default_resize(image_size),
        top1=top1,
        has_head=top1 is not None,
        repository=f"timm/convnextv2_{size}.{tag}",
        file="model.safetensors",
        official_file=f"convnextv2_{size}_{official}.pt",
        licence="CC BY-NC 4.0",
        logits=logits,
        revision=revision,
        sha256=sha256,
    )


IN1K, IN22K = "fcmae_ft_in1k", "fcmae_ft_in22k_in1k"

# Accuracies: from the authors' model zoo. Logits: the values with which the transformers library checks its conversion.
OFFICIAL = (
    *(_row(size, "fcmae", 224, "1k_224_fcmae") for size in SIZES),
    _row("atto", IN1K, 224, "1k_224_ema", 76.7, (-0.3930, 0.1747, -0.5246, 0.4177, 0.4295)),
    _row("femto", IN1K, 224, "1k_224_ema", 78.5, (-0.1727, -0.5341, -0.7818, -0.4745, -0.6566)),
    _row("pico", IN1K, 224, "1k_224_ema", 80.3, (-0.0333, 0.1563, -0.9137, 0.1054, 0.0381)),
    _row("nano", IN1K, 224, "1k_224_ema", 81.9, (-0.1744, -0.1555, -0.0713, 0.0950, -0.1431)),
    _row("tiny", IN1K, 224, "1k_224_ema", 83.0, (0.9996, 0.1966, -0.4386, -0.3472, 0.6661)),
    _row("base", IN1K, 224, "1k_224_ema", 84.9, (-0.2553, -0.6708, -0.1359, 0.2518, -0.2488)),
    _row("large", IN1K, 224, "1k_224_ema", 85.8, (-0.0673, -0.5627, -0.3753, -0.2722, 0.0178)),
    _row("huge", IN1K, 224, "1k_224_ema", 86.3, (-0.6377, -0.7458, -0.2150, 0.1184, -0.0597)),
    _row("nano", IN22K, 224, "22k_224_ema", 82.1, (1.0799, 0.2322, -0.8860, 1.0219, 0.6231)),
    _row("nano", f"{IN22K}_384", 384, "22k_384_ema", 83.4, (0.3766, 0.4917, -1.1426, 0.9942, 0.6024)),
    _row("tiny", IN22K, 224, "22k_224_ema", 83.9, (0.4220, -0.6919, -0.4317, -0.2881, -0.6609)),
    _row("tiny", f"{IN22K}_384", 384, "22k_384_ema", 85.1, (0.1082, -0.8286, -0.5095, 0.4681, -0.8085)),
    _row("base", IN22K, 224, "22k_224_ema", 86.8, (-0.2419, -0.6221, 0.2176, -0.0980, -0.7527)),
    _row("base", f"{IN22K}_384", 384, "22k_384_ema", 87.7, (0.0391, -0.4371, 0.3786, 0.1251, -0.2784)),
    _row("large", IN22K, 224, "22k_224_ema", 87.3, (-0.0504, 0.5636, -0.1729, -0.6507, -0.3949)),
    _row("large", f"{IN22K}_384", 384, "22k_384_ema", 88.2, (0.3560, 0.9486, 0.3149, -0.2667, -0.5138)),
    _row("huge", f"{IN22K}_384", 384, "22k_384_ema", 88.7, (-0.2469, -0.4550, -0.5853, -0.0810, 0.0309)),
    _row("huge", f"{IN22K}_512", 512, "22k_512_ema", 88.9, (-0.3090, 0.0802, -0.0682, -0.1979, -0.2826)),
)

# Trained in this project, see docs/cifar10.md. A checkout has the file in weights/.
OURS = (
    Checkpoint(
        size="atto",
        tag="cifar10",
        image_size=32,
        resize="squash",
        top1=77.48,
        has_head=True,
        repository="keras-cnv2/convnextv2_atto.cifar10",
        file="model.safetensors",
        official_file="convnextv2_atto.cifar10.safetensors",
        licence="Apache-2.0",
        logits=None,
        stem_stride=2,
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        sha256="c5ff2a673430b0dd22913a8318f1da866f2706ce435f9c75811763f147265349",
    ),
)

CHECKPOINTS = OFFICIAL + OURS

# The revision becomes part of a path in the cache, so no part of it may begin with a dot.
REVISION = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")

# Other names for tags.
ALIASES = {"imagenet": IN1K}


def find_checkpoint(weights, size=None):
    """Returns the row that `weights` names.

    Args:
        weights: A tag ("fcmae_ft_in1k", "imagenet") or a full name ("convnextv2_tiny.fcmae_ft_in1k"), followed by "@"
            and a revision for another revision than the row's.
        size: Name of the size, if it is known.

    Returns:
        A `Checkpoint`; for another revision than the row's, it has no checksum.

    Raises:
        CheckpointError: If there is no such row, if several sizes have such a row, or if the revision is invalid.
    """
    if isinstance(weights, str) and "@" in weights:
        name, _, revision = weights.partition("@")
        return _at(find_checkpoint(name, size), revision)
    tag = ALIASES.get(weights, weights) if isinstance(weights, str) else None
    named = [row for row in CHECKPOINTS if tag is not None and tag in (row.tag, row.name)]
    rows = [row for row in named if size in (None, row.size)]
    if len(rows) == 1:
        return rows[0]
    if rows:
        names = ", ".join(row.name for row in rows)
        raise CheckpointError(f"Several sizes have such weights; give a full name: {names}. Received: {weights!r}")
    known = [row.tag for row in CHECKPOINTS if row.size == size] or sorted({row.tag for row in CHECKPOINTS})
    raise CheckpointError(
        f"No published weights of this name{f' for the size {size!r}' if size else ''}, and no such folder. There are "
        f"{', '.join([*ALIASES, *known])}; or give the folder of a model or of a run, or a path that ends in "
        f"{', '.join(READERS)}. Received: {weights!r}"
    )


def _at(row, revision):
    """Returns a row with another revision of its repository."""
    if not REVISION.fullmatch(revision):
        raise CheckpointError(
            "A revision is a commit, a tag or a branch of the hub's repository, as in 'fcmae_ft_in1k@main'. "
            f"Received: {revision!r}"
        )
    return row if revision == row.revision else replace(row, revision=revision, sha256=None)


def find_file(path):
    """Returns the row whose official file, or full name plus ".safetensors", has the name of this path; or `None`."""
    return next((row for row in CHECKPOINTS if path.name in (row.official_file, f"{row.name}.safetensors")), None)
