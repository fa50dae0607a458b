"""What a user has who installed the wheel and nothing else."""

import importlib.util
import subprocess
import tempfile
from importlib import metadata, resources
from pathlib import Path

import numpy as np

import keras_cnv2

assert metadata.version("keras_cnv2") == keras_cnv2.__version__
for name in ("training", "weights", "tests", "benchmarks", "matplotlib", "sklearn", "tensorflow_datasets", "pytest"):
    assert importlib.util.find_spec(name) is None, f"{name} came along"
model = keras_cnv2.ConvNeXtV2Atto(classes=3)
assert model(np.zeros((1, 64, 64, 3), "uint8")).shape == (1, 3)
with tempfile.TemporaryDirectory() as folder:
    keras_cnv2.export_saved_model(model, Path(folder) / "exported")
assert (resources.files("keras_cnv2.export.serving") / "files" / "client.py").is_file()
assert keras_cnv2.decode_predictions(np.eye(1000)[:1], top=1) == [[("tench", 1.0)]]
listed = subprocess.run(["keras-cnv2", "list"], capture_output=True, text=True, check=True).stdout
assert "convnextv2_huge.fcmae_ft_in22k_in1k_512" in listed
assert "quickstart" in subprocess.run(["keras-cnv2", "--help"], capture_output=True, text=True, check=True).stdout
refused = subprocess.run(["keras-cnv2", "quickstart"], capture_output=True, text=True)
assert refused.returncode == 1
assert refused.stderr.count("\n") == 1, refused.stderr
assert 'pip install "keras_cnv2[train]"' in refused.stderr
print("keras_cnv2", keras_cnv2.__version__, "works from its wheel")
