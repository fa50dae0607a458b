"""Looks at many HDF5 files in one process, as `keras_cnv2.checkpoints.hdf5_table` does at one; see test_fuzzing.py.

Run as a program. Each line on standard input is a JSON list: path, start, length. Each answer is two lines: the table,
and, where there is one, "read" once HDF5 itself has read all of what the table lists, as Keras's loader would.
"""

import json
import sys
from pathlib import Path

import h5py

sys.path.append(str(Path(__file__).parents[2] / "keras_cnv2" / "checkpoints"))
import hdf5_table

# Of computing for one file.
SECONDS = 1


def read_with_hdf5(file, start, length, table):
    with h5py.File(hdf5_table.Part(file, start, length), "r") as root:
        for path in table:
            member = root[path]
            [*member.attrs.items()]
            if isinstance(member, h5py.Dataset):
                member[()]


def main():
    for line in sys.stdin:
        path, start, length = json.loads(line)
        hdf5_table.limit(SECONDS)
        with open(path, "rb", buffering=0) as file:
            answer = hdf5_table.answer(file, start, length)
            print(json.dumps(answer), flush=True)
            hdf5_table.limit(SECONDS)
            try:
                if not {"refused", "damaged"} & answer.keys():
                    read_with_hdf5(file, start, length, answer)
            except Exception as error:  # which is no fault: it is told, and nothing hangs
                print(f"read: {type(error).__name__}", flush=True)
            else:
                print("read", flush=True)


if __name__ == "__main__":
    main()
