"""Export to folders for TensorFlow Serving: versions of a SavedModel, warm-up requests and deployment files."""
