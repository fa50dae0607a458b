"""Makes verify.npz: a picture, and the logits that PyTorch has for it with the weights of tests/checkpoints/files.

Run by hand, with torch, transformers and Pillow: python -m tests.golden.make_verify
Pillow decodes and resizes (rows first, then columns), transformers' PyTorch model computes: nothing here is ours.
"""

import io
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import transformers
from PIL import Image

from tests.golden import rule

FILES = Path(__file__).parents[1] / "checkpoints" / "files"
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def picture():
    pixels = np.uint8(np.clip(rule.image(4242, 1, 300, 420)[0] * 40 + 128, 0, 255))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def resized(image, width, height):
    return image.resize((width, image.height), Image.BICUBIC).resize((width, height), Image.BICUBIC)


def logits(model, image):
    pixels = (np.asarray(image) / 255 - MEAN) / STD
    with torch.no_grad():
        return model(torch.from_numpy(np.float32(pixels)).permute(2, 0, 1)[None]).logits[0].numpy()


def main():
    config = transformers.ConvNextV2Config(
        depths=(1, 1, 2, 1), hidden_sizes=(8, 16, 24, 32), num_labels=10, layer_norm_eps=1e-6
    )
    model = transformers.ConvNextV2ForImageClassification(config).eval()
    model.load_state_dict(safetensors.torch.load_file(FILES / "transformers.safetensors"), strict=True)
    encoded = picture()
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    whole = resized(image, 256 * image.width // image.height, 256)
    left = (whole.width - 224) // 2
    np.savez(
        Path(__file__).with_name("verify.npz"),
        picture=np.frombuffer(encoded, "uint8"),
        crop=logits(model, whole.crop((left, 16, left + 224, 240))),
        squash=logits(model, resized(image, 224, 224)),
    )


if __name__ == "__main__":
    main()
