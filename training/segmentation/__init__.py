"""Training of semantic segmentation: data, augmentation, evaluation, pictures."""
