"""Recipes: their fields (fields, dense), and their rows (images, segmentation, detection)."""

from . import detection as detection
from . import images as images
from . import segmentation as segmentation
