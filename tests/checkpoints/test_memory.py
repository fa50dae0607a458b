"""What reading a big model's weights costs in memory. (Huge takes three times as long and gave the same shares.)"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Files are made in processes of their own and each is read in another, so that nothing of the making is in its memory.
MAKE_OURS = """
import sys
import keras_cnv2

model = keras_cnv2.ConvNeXtV2{size}()
model.save_weights(sys.argv[1] + "/model.weights.h5")
keras_cnv2.save_checkpoint(model, sys.argv[1] + "/model.safetensors")
"""
MAKE_PYTORCHS = """
import sys
import torch
from safetensors.torch import load_file, save_file

folder = sys.argv[1]
tensors = load_file(folder + "/model.safetensors")
torch.save({"model": tensors}, folder + "/model.pt")
torch.save({"model": tensors}, folder + "/legacy.pt", _use_new_zipfile_serialization=False)
save_file({name: tensor.half() for name, tensor in tensors.items()}, folder + "/half.safetensors")
"""
FILES = {"model.weights.h5", "model.safetensors", "model.pt", "legacy.pt", "half.safetensors"}

READ = """
import os, re, sys
import keras_cnv2

def memory(name):
    return int(re.search(name + r":\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

path = sys.argv[1]
model = keras_cnv2.ConvNeXtV2{size}()
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
keras_cnv2.load_checkpoint(model, path)
print((memory("VmHWM") - before) / os.path.getsize(path))
"""


def run(program, size, path):
    """What a program prints."""
    command = [sys.executable, "-c", program.replace("{size}", size), str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("size", ["Base", pytest.param("Large", marks=pytest.mark.release)])
def test_reading_costs_little_more_than_the_file(size, tmp_path):
    pytest.importorskip("torch")
    for program in (MAKE_OURS, MAKE_PYTORCHS):
        run(program, size, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    costs = {path.name: float(run(READ, size, path)) for path in tmp_path.iterdir()}
    print(costs)
    assert max(costs.values()) <= 1.3, costs
