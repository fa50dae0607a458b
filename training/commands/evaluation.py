"""Settings of an evaluation, given as options or taken from the run whose weights are evaluated."""

from dataclasses import dataclass
from pathlib import Path

from keras_cnv2.images.header import MAX_PIXELS

from ..errors import RecipeError
from .config import read_config, value_of
from .scaling import SCALING, run_of, scaling_of
from .values import converter, positive_int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Settings of an evaluation; the fields are those of a recipe.

    Args:
        data, weights, model, image_size, resize, batch_size, max_unreadable, exif_orientation, max_pixels, scale, mean,
            deviation: See `training.recipes.fields.Recipe`. Defaults of `image_size` and `resize` are those of the
            weights, else 224 and the paper's way. The weights' `resize` is used only with the weights' `image_size`.
        class_names: Path of a text file with the names of the weights' classes, one per line. By default the names in
            the weights, or those of the data, in their order.
        mirrored: Whether to score, in addition, the mean of the predictions for each image and its mirror image.
    """

    data: str
    weights: str
    model: str | None = None
    image_size: int | None = None
    resize: str | None = None
    class_names: str | None = None
    batch_size: int = 64
    mirrored: bool = False
    max_unreadable: float = 0.01
    exif_orientation: bool = True
    max_pixels: int = MAX_PIXELS
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    # Data without a validation split are evaluated as a whole.
    validation_share: float = 1.0
    train_share: float = 1.0
    seed: int = 0


# Fields that the evaluation of a run takes from its recipe, in addition to the scaling of values.
FROM_RUN = ("data", "image_size", "resize", "max_unreadable", "exif_orientation", "max_pixels")


def add_picture_options(parser):
    """Adds the options for reading pictures; their defaults are those of the run of `--config`."""
    parser.add_argument(
        "--exif-orientation",
        type=converter(bool),
        nargs="?",
        const=True,
        help="whether pictures are turned as their EXIF data say (default: true)",
    )
    parser.add_argument("--max-pixels", type=positive_int, help=f"in the largest picture (default: {MAX_PIXELS})")
    parser.add_argument(
        "--max-unreadable", type=converter(float), help="share of the pictures that may be unreadable (default: 0.01)"
    )
    for name, annotation in (("scale", float), ("mean", tuple[float, ...]), ("deviation", tuple[float, ...])):
        parser.add_argument(f"--{name}", type=converter(annotation), help="for an .npz file, as in `finetune`")


def completed(given, config=None):
    """Completes options with those of an earlier run.

    If the data are an .npz file and no scaling is given, the scaling is that of the run of `config`, else of the run
    that the (first) weights belong to.

    Args:
        given: Dict from the names of options to their values, `None` for options that were not given.
        config: Path of the run's config.json, or of its folder; `None` for no run.

    Raises:
        RecipeError: If weights or data are missing, or the run's configuration is damaged.
    """
    given = {name: value for name, value in given.items() if value not in (None, [])}
    if config:
        path = Path(config)
        given = {"weights": str(path if path.is_dir() else path.parent), **_of_run(config), **given}
    run = config or run_of(_first(given.get("weights")))
    if run and str(given.get("data")).endswith(".npz") and {*SCALING}.isdisjoint(given):
        given |= scaling_of(run)
    for name in ("weights", "data"):
        if not given.get(name):
            raise RecipeError(f"{name} must be given, or the config of a run. Received: neither")
    return given


def _first(weights):
    return weights[0] if isinstance(weights, list) else weights


def _of_run(config):
    earlier, fields = read_config(config), Evaluation.__dataclass_fields__
    taken = [name for name in FROM_RUN if earlier.get(name) is not None]
    return {name: value_of(name, earlier[name], fields[name].type, config) for name in taken}
