"""Fields of the augmentation in fine-tuning, except for crops and flips.

A new field is written here, and used in `training.data.images.augment.Augmentation`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """Settings of the augmentation of images and labels.

    Args:
        rand_augment: Magnitude of RandAugment, 0 to 10; 0 for none.
        rand_augment_std: Standard deviation of RandAugment's magnitude.
        erasing: Probability of random erasing.
        cutout: Side in pixels of a square in each image that is filled with the mean colour; 0 for none.
        label_smoothing: Share of the label that is spread over all classes.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.
    """

    rand_augment: float = 0.0
    rand_augment_std: float = 0.5
    erasing: float = 0.0
    cutout: int = 0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


def check_augmentation(recipe):
    """Raises a `RecipeError` if settings of the augmentation are invalid."""
    recipe.check("rand_augment", 0 <= recipe.rand_augment <= 10, "from 0 to 10")
    for name in ("rand_augment_std", "mixup", "cutmix"):
        recipe.check(name, getattr(recipe, name) >= 0, "0 or more")
    recipe.check("cutout", 0 <= recipe.cutout <= recipe.image_size, f"from 0 to image_size={recipe.image_size}")
    for name in ("erasing", "label_smoothing"):
        recipe.check(name, 0 <= getattr(recipe, name) < 1, "from 0 to below 1")
