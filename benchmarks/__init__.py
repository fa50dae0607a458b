"""Time and memory of keras_cnv2, compared with other implementations. `python -m benchmarks --list`"""
