"""FCMAE's training step with the visible encoder, compared with the dense one, plain TensorFlow and a classifier.

    python -m benchmarks.fcmae_encoders [--size atto] [--batch 32] [--rounds 7]

All contestants run in one process, in turns, on the same images and masks, and the losses of FCMAE must agree. The
result is the median of the rounds' ratios, so that other processes disturb all contestants equally. "classifier" is the
training step of the plain model of that size: no masks, no decoder, 1000 classes.

Memory is the peak of TensorFlow's allocator (oneDNN's, on an x86 CPU) during a step, minus its memory before the step.
This covers activations, gradients of the weights and workspace, but not the weights and the optimizer's state.
"""

import time

import keras
import numpy as np
import tensorflow as tf

import keras_cnv2
from benchmarks import contest, masked_reference
from benchmarks.measure import Turn
from benchmarks.report import Results

CONTESTANTS = ("visible", "dense", "plain TensorFlow", "classifier")
WARM_UP = 2  # number of rounds that are not counted, because they include compilation


def compiled(model, **kwargs):
    model.compile(keras_cnv2.LayerDecayAdamW(1.5e-4, weight_decay=0.05, beta_2=0.95), **kwargs)
    model.optimizer.build(model.trainable_variables)
    return model


def data_of(args):
    """Returns images, and random masks with FCMAE's ratio of masked patches."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (args.batch, args.image_size, args.image_size, 3)).astype("float32")
    side = args.image_size // 32
    visible = int(side**2 * 0.4)
    hidden = rng.permuted(np.tile(np.arange(side**2) >= visible, (args.batch, 1)), axis=1)
    return images, hidden.reshape(-1, side, side).astype("float32")


def step_of(contestant, args):
    """Returns a function without arguments that makes one optimizer step and returns its loss."""
    images, hidden = data_of(args)
    if contestant == "classifier":
        model = getattr(keras_cnv2, f"ConvNeXtV2{args.size.title()}")(classifier_activation=None)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        compiled(model, loss=loss)
        return lambda: float(model.train_on_batch(images, np.arange(args.batch)))
    keras.utils.set_random_seed(0)  # the same weights for all
    encoder = "visible" if contestant == "visible" else "dense"
    model = compiled(keras_cnv2.FCMAE(args.size, image_size=args.image_size, encoder=encoder))
    if contestant == "plain TensorFlow":
        step = masked_reference.train_step(model)
        return lambda: float(step(tf.constant(images), tf.constant(hidden)))
    return lambda: float(model.train_on_batch({"images": images, "hidden": hidden}))


def measure(step):
    """Makes a step. Returns its seconds, its peak memory in bytes and its loss."""
    tf.config.experimental.reset_memory_stats("CPU:0")
    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    start = time.perf_counter()
    loss = step()
    seconds = time.perf_counter() - start
    return seconds, tf.config.experimental.get_memory_info("CPU:0")["peak"] - before, loss


def take_turns(args):
    """Yields the `Turn` of every contestant in every round."""
    steps = {contestant: step_of(contestant, args) for contestant in CONTESTANTS}
    for number in range(-WARM_UP, args.rounds):
        losses = []
        for contestant, step in steps.items():
            seconds, peak, loss = measure(step)
            if contestant != "classifier":
                losses.append(loss)
            if number >= 0:
                yield Turn(contestant, number, seconds, peak)
        # The first losses differ by rounding only; AdamW's steps then amplify the differences.
        np.testing.assert_allclose(losses, losses[0], rtol=1e-5 if number == -WARM_UP else 1e-3)


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.add_argument("--size", default="atto", help="published size")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    args = parser.parse_args(argv)

    results = Results(f"FCMAE's training step at {args.image_size} x {args.image_size} in float32", CONTESTANTS[0])
    for turn in take_turns(args):
        results.add(f"{args.size}, batch {args.batch}", args.batch, turn)
    contest.finish(results, "fcmae_encoders", args.out)


if __name__ == "__main__":
    main()
