"""Images per second on a GPU in bfloat16: keras_cnv2 on JAX and PyTorch, and FCMAE's visible and dense encoder.

    python -m benchmarks.gpu [--sizes tiny base] [--batch 256] [--rounds 7] [--check]

There are three cases for each size: inference, a fine-tuning step and a step of FCMAE. The PyTorch model of
transformers, channels last, eager and with torch.compile, takes part in the first two. The GPU's rate of bfloat16
matrix products is measured as well. Needs JAX and PyTorch for the GPU. No process loads TensorFlow.

`--check` runs everything on the CPU with a model of a few thousand parameters, to check for equal outputs; its times
have no meaning. So far, this benchmark has only been run that way.
"""

import os

from benchmarks import contest
from benchmarks.measure import Spread
from benchmarks.report import Results
from benchmarks.tasks import Task
from benchmarks.workers import Contestant, Worker

JAX, TORCH = "benchmarks.ours_jax:", "benchmarks.rivals.transformers_torch:"
# Several processes share the GPU, so none may reserve all of its memory.
SHARED = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
SMALL = Task((1, 1, 1, 1), (8, 16, 24, 32), batch=2, image_size=64, classes=10)
OURS = "keras_cnv2"
MODES = {
    "transformers, eager": None,
    "transformers, torch.compile": "default",
    "transformers, torch.compile max-autotune": "max-autotune",
}

# Tolerances for rounding to 8 bits in every layer, relative to the largest logit and to the loss.
LOGITS, LOSSES = 0.1, 0.02


def contests(device):
    """Returns {case: ({name: Contestant}, keyword arguments of `contest.run_case`)}."""
    torch = {"device": device, "dtype": "bfloat16"}

    def ours(function, **settings):
        return Contestant(JAX + function, settings, SHARED)

    def all_of(function):
        rivals = {name: Contestant(TORCH + function, {**torch, "mode": mode}) for name, mode in MODES.items()}
        return {OURS: ours(function), **rivals}

    encoders = {OURS: ours("fcmae", encoder="visible"), "keras_cnv2, dense encoder": ours("fcmae", encoder="dense")}
    steps = {"tolerance": LOSSES, "calls": 3}
    return {
        "inference": (all_of("inference"), {"tolerance": LOGITS}),
        "fine-tuning step": (all_of("training"), steps),
        "FCMAE step": (encoders, steps),
    }


def matrix_rate(width, repeats, rounds):
    """Returns Markdown with the number of operations per second that matrix products reach."""
    contestant = Contestant(JAX + "products", {"width": width, "repeats": repeats}, SHARED)
    with Worker(contestant, SMALL) as worker:
        rates = Spread.of(2 * width**3 * repeats / worker.turn()[0] / 1e12 for _ in range(rounds))
    return f"Matrix products of {width} in bfloat16: {rates.median:.4g} TFLOP/s ({rates.low:.4g} to {rates.high:.4g})."


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "base"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--check", action="store_true", help="on the CPU with a small model")
    args = parser.parse_args(argv)

    os.environ.update(SHARED)
    tasks, width, repeats = {size: Task.of(size, args.batch) for size in args.sizes}, 8192, 20
    if args.check:
        os.environ["JAX_PLATFORMS"] = "cpu"
        tasks, width, repeats = {"a small model": SMALL}, 256, 2
    results = Results("On a GPU in bfloat16, at 224 x 224" if not args.check else "A check on the CPU", OURS)
    for size, task in tasks.items():
        for case, (contestants, settings) in contests("cpu" if args.check else "cuda").items():
            name = f"{size}, batch {task.batch}, {case}"
            contest.run_case(results, name, contestants, task, args.rounds, **settings)
    contest.finish(results, "gpu", args.out, matrix_rate(width, repeats, args.rounds))


if __name__ == "__main__":
    main()
