"""A training step on 32 x 32 images on the CPU, compared with PyTorch and with the rate of matrix products.

    python -m benchmarks.small_images [--size atto] [--strides 1 2] [--batch 256] [--rounds 5]

At stem stride 1, the first stage has as many positions as for a 128 x 128 image at stride 4. The same rounds measure
one product of two large matrices, and a batch of the input pipeline.
"""

import dataclasses

from benchmarks import contest, floor
from benchmarks.measure import Spread, ratios
from benchmarks.report import Results
from benchmarks.tasks import Task, multiply_accumulates
from benchmarks.workers import Contestant

REFERENCE = "keras_cnv2"
TORCH = "benchmarks.rivals.transformers_torch:training"
PRODUCT = f"one product of {floor.WIDTH} x {floor.WIDTH}"
PIPELINE = "keras_cnv2, a batch of the input pipeline"
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
# Number of first steps whose losses are compared, and tolerances; bfloat16 rounds to 8 bits in every layer.
STEPS, TOLERANCES = 3, {"float32": 1e-4, "bfloat16": 0.02}


def contestants(dtype):
    """Returns {name: Contestant}."""
    return {
        REFERENCE: Contestant("benchmarks.ours:training", {"dtype": POLICIES[dtype]}),
        "transformers, eager, channels_last": Contestant(TORCH, {"dtype": dtype}),
        "transformers, torch.compile": Contestant(TORCH, {"dtype": dtype, "mode": "default"}),
        PRODUCT: Contestant("benchmarks.floor:rate", {"dtype": dtype}),
        PIPELINE: Contestant("benchmarks.ours:small_pictures"),
    }


def shares(results, work):
    """Returns Markdown with a step's rate, its ratio to one large product's rate, and the input pipeline's time share.

    Args:
        results: `Results` of all cases.
        work: Dict from a case to the multiply-accumulates of its forward pass; a step has three times as many.
    """
    rows = ["| | rate of the step, GFLOP/s | of one product's rate | input pipeline's share |", "|---|---|---|---|"]
    for (case, _), turns in results.cases.items():
        step, product = 6 * work[case], 2 * floor.WIDTH**3
        rate = Spread.of(step / turn.seconds / 1e9 for turn in turns if turn.contestant == REFERENCE)
        share = step / product * ratios(turns, PRODUCT, REFERENCE).median
        rows.append(f"| {case} | {rate.median:.0f} | {share:.2f} | {ratios(turns, PIPELINE, REFERENCE).median:.1%} |")
    return "\n".join(rows)


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.set_defaults(rounds=5)
    parser.add_argument("--size", default="atto")
    parser.add_argument("--strides", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=256)
    args = parser.parse_args(argv)

    results, work = Results("Training step (forward, backward, AdamW) at 32 x 32", REFERENCE), {}
    for stride in args.strides:
        task = dataclasses.replace(Task.of(args.size, args.batch, 32), stem_stride=stride, classes=10)
        for dtype, tolerance in TOLERANCES.items():
            case = f"{args.size}, stem stride {stride}, batch {args.batch}, {dtype}"
            work[case] = multiply_accumulates(task)
            settings = {"exempt": (PRODUCT, PIPELINE), "tolerance": tolerance, "calls": STEPS}
            contest.run_case(results, case, contestants(dtype), task, args.rounds, **settings)
    contest.finish(results, "small_images", args.out, shares(results, work))


if __name__ == "__main__":
    main()
