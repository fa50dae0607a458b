"""Images with bounding boxes: sources, batches, augmentation."""
