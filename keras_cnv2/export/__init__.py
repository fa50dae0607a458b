"""Models as files that others run: SavedModel, TensorFlow Serving, LiteRT, ONNX."""
