"""A training step on the CPU: forward, backward and AdamW, compared with PyTorch.

    python -m benchmarks.training_step [--sizes tiny atto] [--batches 8] [--rounds 7]

All contestants start from the same weights, images and labels; the losses of the first steps must agree. From the
second step on, losses also depend on gradients and AdamW.
"""

from benchmarks import contest
from benchmarks.report import Results
from benchmarks.tasks import Task
from benchmarks.workers import Contestant

REFERENCE = "keras_cnv2"
TORCH = "benchmarks.rivals.transformers_torch:training"
CONTESTANTS = {
    REFERENCE: Contestant("benchmarks.ours:training"),
    "transformers, eager, channels_last": Contestant(TORCH),
    "transformers, torch.compile": Contestant(TORCH, {"mode": "default"}),
}
STEPS, TOLERANCE = 4, 1e-4


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "atto"])
    parser.add_argument("--batches", nargs="+", type=int, help="default: 8 for tiny, 16 for the others")
    args = parser.parse_args(argv)

    results = Results("Training step (forward, backward, AdamW) at 224 x 224 in float32", REFERENCE)
    for size in args.sizes:
        for batch in args.batches or [8 if size == "tiny" else 16]:
            case, task = f"{size}, batch {batch}", Task.of(size, batch)
            contest.run_case(results, case, CONTESTANTS, task, args.rounds, tolerance=TOLERANCE, calls=STEPS)
    contest.finish(results, "training_step", args.out)


if __name__ == "__main__":
    main()
