"""Inference on the CPU: the graph that users serve, compared with other implementations and with matrix products alone.

    python -m benchmarks.inference [--sizes tiny atto] [--batches 1 8] [--rounds 7] [--only NAME ...]

All contestants have the same weights and must output the same logits, except keras.applications, whose ConvNeXt is V1,
and the floor, which consists of a model's matrix products alone; these two check their own outputs.
"""

from benchmarks import contest
from benchmarks.report import Results
from benchmarks.tasks import Task
from benchmarks.workers import Contestant

REFERENCE = "keras_cnv2"
TORCH = "benchmarks.rivals.transformers_torch:inference"
CONTESTANTS = {
    REFERENCE: Contestant("benchmarks.ours:inference"),
    "keras_cnv2, folded": Contestant("benchmarks.ours:inference", {"folded": True}),
    "keras_cnv2, LiteRT": Contestant("benchmarks.ours:litert", install='pip install -e ".[litert]"'),
    "keras_cnv2, ONNX Runtime": Contestant("benchmarks.ours:onnx", install='pip install -e ".[onnx]"'),
    # The faster layout depends on size and batch. For the compiled model, max-autotune and freezing gained nothing.
    "transformers, eager": Contestant(TORCH, {"layout": "contiguous_format"}),
    "transformers, eager, channels_last": Contestant(TORCH),
    "transformers, torch.compile": Contestant(TORCH, {"mode": "default"}),
    "zeromodels": Contestant("benchmarks.rivals.zeromodels_:inference", install="pip install zeromodels==1.3.6"),
    "keras_cv_attention_models": Contestant(
        "benchmarks.rivals.kecam:inference",
        environment={"TF_USE_LEGACY_KERAS": "1"},
        install="pip install keras_cv_attention_models==1.4.3 tf-keras",
    ),
    "keras.applications, V1": Contestant("benchmarks.rivals.keras_applications:inference"),
    "matrix products alone": Contestant("benchmarks.floor:inference"),
}
# Contestants with other outputs, see above.
OTHER_OUTPUTS = ("keras.applications, V1", "matrix products alone")

# Tolerance for float32 through up to 36 blocks, relative to the largest logit.
TOLERANCE = 1e-4


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "atto"])
    parser.add_argument("--batches", nargs="+", type=int, help="default: 1, and 8 for tiny or 16 for the others")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    args = parser.parse_args(argv)

    results = Results("Inference at 224 x 224 in float32", REFERENCE)
    for size in args.sizes:
        contestants = {name: each for name, each in CONTESTANTS.items() if name in (REFERENCE, *args.only)}
        if size != "tiny":
            contestants.pop("keras.applications, V1", None)
        for batch in args.batches or (1, 8 if size == "tiny" else 16):
            task = Task.of(size, batch)
            contest.run_case(
                results,
                f"{size}, batch {batch}",
                contestants,
                task,
                args.rounds,
                exempt=OTHER_OUTPUTS,
                tolerance=TOLERANCE,
            )
    contest.finish(results, "inference", args.out)


if __name__ == "__main__":
    main()
