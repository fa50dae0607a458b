"""How a recipe reads pictures. Imports no TensorFlow."""

from keras_cnv2.images.pictures import Reading


def reading_of(recipe):
    """Returns the `keras_cnv2.images.pictures.Reading` of a recipe."""
    return Reading(recipe.exif_orientation, recipe.max_pixels)
