"""One FCMAE training step with the visible and the dense encoder, side by side.

    python -m benchmarks.fcmae_encoders [--size atto] [--batch 32] [--rounds 7]

Both run in one process, alternating, on the same images and masks, and their losses must agree. What is quoted is the
median of the rounds' ratios, so that a noisy neighbour disturbs both alike.
"""

import argparse
import platform
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

import keras_cnv2


def compiled(encoder, size, image_size):
    """A new FCMAE that is ready for `train_on_batch`."""
    model = keras_cnv2.FCMAE(size, image_size=image_size, encoder=encoder)
    model.compile(optimizer=keras.optimizers.AdamW(1.5e-4, weight_decay=0.05, beta_2=0.95))
    return model


def time_step(model, batch):
    """Runs one optimizer step. Returns its time in ms and its loss."""
    start = time.perf_counter()
    loss = float(model.train_on_batch(batch))
    return 1000 * (time.perf_counter() - start), loss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="atto", help="published size")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    dense, visible = (compiled(encoder, args.size, args.image_size) for encoder in ("dense", "visible"))
    keras_cnv2.load_checkpoint(visible, keras_cnv2.state_dict(dense))
    images = np.random.default_rng(0).uniform(0, 255, (args.batch, *dense.image_size, 3)).astype("float32")
    hidden = np.array(dense(images)["hidden"])
    batch = {"images": images, "hidden": hidden}

    rows = []
    for round_number in range(args.rounds + 2):  # the first two compile and warm up
        dense_ms, dense_loss = time_step(dense, batch)
        visible_ms, visible_loss = time_step(visible, batch)
        # The first losses are equal but for rounding, which AdamW's steps then enlarge.
        np.testing.assert_allclose(visible_loss, dense_loss, rtol=1e-3 if round_number else 1e-5)
        if round_number >= 2:
            rows.append((dense_ms, visible_ms, dense_ms / visible_ms))
            print(f"round {round_number - 1}: dense {dense_ms:.0f} ms, visible {visible_ms:.0f} ms", flush=True)

    dense_ms, visible_ms, ratio = (statistics.median(column) for column in zip(*rows))
    spread = f"{min(r[2] for r in rows):.2f} to {max(r[2] for r in rows):.2f}"
    print(f"\n{platform.processor() or platform.machine()}, TensorFlow {tf.__version__}, Keras {keras.__version__}")
    print("\n| size | batch | dense, ms | visible, ms | times as fast (spread) |\n|---|---|---|---|---|")
    print(f"| {args.size} | {args.batch} | {dense_ms:.0f} | {visible_ms:.0f} | {ratio:.2f} ({spread}) |")


if __name__ == "__main__":
    main()
