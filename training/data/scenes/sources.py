"""Opens the segmentation data that a recipe names."""

from ...errors import RecipeError
from ..reading import options_of
from .folders import SceneFolder
from .tfds import TfdsScenes


def open_scenes(recipe):
    """Opens the data of a recipe for segmentation.

    Args:
        recipe: The recipe, whose `data` is a folder or "tfds:NAME".

    Returns:
        A `SceneFolder` or `TfdsScenes`.

    Raises:
        RecipeError: If the recipe names no data.
        ValueError or OSError: If the data do not exist or are not usable.
    """
    if recipe.data is None:
        raise RecipeError(
            "data must be a folder of pictures and labels, or tfds:NAME; this recipe has none of its own. "
            "Received: data=None"
        )
    common = {name: getattr(recipe, name) for name in ("classes", "ignore_label", "reduce_zero_label")}
    common |= options_of(recipe)
    if recipe.data.startswith("tfds:"):
        return TfdsScenes(recipe.data.removeprefix("tfds:"), **common)
    return SceneFolder(recipe.data, seed=recipe.seed, **common)
