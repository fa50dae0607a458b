"""Opens the classification or pre-training data that a recipe names."""

from pathlib import Path

from ...errors import RecipeError
from ..reading import options_of
from . import arrays, npz


def open_source(recipe, labelled=True):
    """Opens the data of a recipe.

    Args:
        recipe: The recipe, whose `data` names the data.
        labelled: Bool, whether classes are needed. If not, a folder may hold pictures in any structure.

    Returns:
        A `training.data.source.Source`.

    Raises:
        RecipeError: If the recipe names no data.
        ValueError or OSError: If the data do not exist or are not usable.
    """
    name = recipe.data
    if name is None:
        raise RecipeError(
            "data must be a folder, tfds:NAME, digits or an .npz file; this recipe has none of its own. "
            "Received: data=None"
        )
    if name == "digits":
        return arrays.digits(recipe.image_size).with_share(recipe.train_share, recipe.seed)
    if name.endswith(".npz"):
        source = npz.from_npz(name, recipe.image_size, labelled, recipe.scale, recipe.mean, recipe.deviation)
        # As for folders, nothing is held out of images without labels.
        source = source.with_held_out(recipe.validation_share if labelled else 0, recipe.seed)
        return source.with_share(recipe.train_share, recipe.seed)
    # The sources below need TensorFlow.
    common = {"labelled": labelled, "train_share": recipe.train_share, **options_of(recipe)}
    if name.startswith("tfds:"):
        from .tfds import Tfds

        return Tfds(name.removeprefix("tfds:"), **common)
    from .folders import Folder

    return Folder(Path(name), seed=recipe.seed, **common)
