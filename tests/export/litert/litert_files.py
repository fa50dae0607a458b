"""What LiteRT files are tried with, and what they answer."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter

SIZE = 64


def images(count=4, height=SIZE, width=SIZE, channels=3, seed=0):
    """Waves: noise alone looks the same everywhere to a model."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: 1 : height * 1j, : 1 : width * 1j][..., None]
    down, along, phase = rng.uniform(0, 20, (3, count, 1, 1, channels))
    return np.round(127 + 80 * np.sin(down * y + along * x + phase) + rng.uniform(-40, 40, (count, height, width, 1)))


def run(path, batch):
    """All outputs, by name, image by image as the file's batch is."""
    runner = Interpreter(str(path)).get_signature_runner()
    details = runner.get_input_details()["images"]
    size = details["shape"][0]
    parts = [runner(images=batch[i : i + size].astype(details["dtype"])) for i in range(0, len(batch), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
