"""Export of models for deployment: SavedModel, TensorFlow Serving, LiteRT, ONNX."""
