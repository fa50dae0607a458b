"""Makes dilated.npz: the feature maps of timm's ConvNeXt V2 with `output_stride`.

python tests/golden/make_dilated.py

Needs timm, in an environment of its own. Tried with timm 1.0.31 and torch 2.13.0. Weights and images follow rule.py, by
the names of timm.
"""

from pathlib import Path

import numpy as np
import rule
import timm
import torch

SEED = 11
ARCHITECTURE = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
IMAGES = (1, 64, 48)

arrays = {"seed": SEED, "images": IMAGES, **ARCHITECTURE}
for output_stride in (8, 16):
    model = timm.create_model("convnextv2_tiny", num_classes=0, output_stride=output_stride, **ARCHITECTURE).eval()
    weights = {name: rule.tensor(SEED, name, value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    images = torch.from_numpy(rule.image(SEED, *IMAGES).transpose(0, 3, 1, 2))
    with torch.no_grad():
        maps = model.forward_intermediates(images, intermediates_only=True)
    for stage, features in enumerate(maps):
        arrays[f"{output_stride}/stage{stage}"] = features.numpy().transpose(0, 2, 3, 1)
np.savez_compressed(Path(__file__).with_name("dilated.npz"), **arrays)
