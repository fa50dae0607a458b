"""Images with a class for each pixel: sources, batches, augmentation."""
