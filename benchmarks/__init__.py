"""What keras_cnv2 takes in time and memory, beside other implementations of the same. `python -m benchmarks --list`"""
