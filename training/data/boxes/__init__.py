"""Images with boxes: sources, batches, augmentation."""
