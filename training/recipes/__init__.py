"""Recipes: their fields (in fields, dense, segmentation and detection) and rows (images, segmentation, detection)."""

from . import detection as detection
from . import images as images
from . import segmentation as segmentation
