"""Images with one class each: sources, batches, augmentation."""
