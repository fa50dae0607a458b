"""Export to LiteRT (TFLite) files in float32, float16 or int8."""
