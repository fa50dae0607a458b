"""How the sources of a recipe read stored pictures. Imports no TensorFlow."""

from keras_cnv2.images.pictures import Reading


def options_of(recipe):
    """Returns the arguments that all sources of stored pictures take from a recipe, a dict."""
    return {
        "validation_share": recipe.validation_share,
        "max_unreadable": recipe.max_unreadable,
        "reading": Reading(recipe.exif_orientation, recipe.max_pixels),
    }
