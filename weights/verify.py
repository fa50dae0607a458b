"""Compares all published weights with their published logits, and prints a table.

python -m weights.verify 000000039769.jpg

The argument is this picture of COCO val2017. Downloads 12 GB. `keras-cnv2 verify` does the same for selected weights.
"""

import sys

from keras_cnv2.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
