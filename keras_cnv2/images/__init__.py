"""Images: reading, resizing and normalisation of image files, and class names."""
