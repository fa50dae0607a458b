"""Mask R-CNN and Faster R-CNN: proposals, then classes, boxes and masks of the proposals."""
