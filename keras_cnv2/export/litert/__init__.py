"""LiteRT (TFLite) files: float, float16 and int8."""
