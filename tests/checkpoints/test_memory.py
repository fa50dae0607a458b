"""What reading a big model's weights costs in memory. (Huge takes three times as long and gave the same shares.)"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Files are made in one process and read in another, so that nothing of the making is left in memory, and one after the
# other: each is up to 0.8 GB (Large).
MAKE = {
    "model.weights.h5": "keras_cnv2.ConvNeXtV2{size}().save_weights(path)",
    "model.safetensors": "keras_cnv2.save_checkpoint(keras_cnv2.ConvNeXtV2{size}(), path)",
    "model.pt": "torch.save({'model': load_file(source)}, path)",
    "legacy.pt": "torch.save({'model': load_file(source)}, path, _use_new_zipfile_serialization=False)",
    "half.safetensors": "save_file({name: t.half() for name, t in load_file(source).items()}, path)",
}
IMPORTS = "import sys; path, source = sys.argv[1:]; "
KERAS, TORCH = "import keras_cnv2; ", "import torch; from safetensors.torch import load_file, save_file; "

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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("size", ["Base", pytest.param("Large", marks=pytest.mark.release)])
def test_reading_costs_little_more_than_the_file(size, tmp_path):
    pytest.importorskip("torch")
    source = tmp_path / "model.safetensors"
    costs = {}
    for name, code in MAKE.items():
        path = tmp_path / name
        code = IMPORTS + (KERAS if "keras_cnv2" in code else TORCH) + code.replace("{size}", size)
        subprocess.run([sys.executable, "-c", code, path, source], check=True)
        run = subprocess.run(
            [sys.executable, "-c", READ.replace("{size}", size), path], check=True, capture_output=True, text=True
        )
        costs[name] = float(run.stdout)
        if path != source:
            path.unlink()
    print(costs)
    assert max(costs.values()) <= 1.3, costs
