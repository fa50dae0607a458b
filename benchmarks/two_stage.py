"""Mask R-CNN on the CPU: a prediction and a training step by parts, and parts compared with torchvision.

    python -m benchmarks.two_stage [--sizes atto tiny] [--image-size 512] [--rounds 5] [--torchvision PYTHON]

A prediction and a step are cut off after each part, so the difference of two rows is a part. From torchvision come the
parts that torch.compile compiles: pyramid and proposal head, box head and mask head, on given features, with the same
weights and the same outputs. The encoder is compared with transformers' one. torchvision can be in an environment of
its own; give its Python.
"""

from benchmarks import contest
from benchmarks.detection_task import DetectionTask
from benchmarks.report import Results
from benchmarks.tasks import Task
from benchmarks.workers import Contestant

REFERENCE = "all"
OURS, THEIRS = "keras_cnv2", "torch.compile"
# The parts after which a prediction and a training step are cut off, see `benchmarks.ours_detection`.
PREDICTION = ("encoder", "pyramid and anchors", "proposals", "boxes", "detections", "all")
TRAINING = ("encoder", "pyramid and anchors", "losses without masks", "all")
PARTS = {"pyramid": "pyramid and proposal head", "box_head": "box head", "mask_head": "mask head"}
TOLERANCE = 1e-3


def by_parts(results, task, kind, parts, rounds):
    """Adds a case: a prediction, or a training step, cut off after each part."""
    contestants = {part: Contestant(f"benchmarks.ours_detection:{kind}", {"until": part}) for part in parts}
    contest.run_turns(results, f"{kind}, {task.size}, batch {task.batch}", contestants, task, rounds, exempt=parts)


def beside_torch(results, size, image_size, rounds, python=None):
    """Adds the cases in which a part of ours and of others compute the same."""
    task = Task.of(size, 1, image_size)
    torch = "benchmarks.rivals.transformers_torch:inference"
    encoders = {OURS: Contestant("benchmarks.ours:inference"), THEIRS: Contestant(torch, {"mode": "default"})}
    contest.run_case(results, f"encoder, {size}", encoders, task, rounds, tolerance=TOLERANCE)
    for part, name in PARTS.items():
        for trained in (False, True):
            case = f"{name}, {size}{', gradients' if trained else ''}"
            beside_torchvision(results, case, DetectionTask.of(size, 1, image_size), part, trained, rounds, python)


def beside_torchvision(results, case, task, part, trained, rounds, python=None, mode="default"):
    settings = {"name": part, "trained": trained}
    contestants = {
        OURS: Contestant("benchmarks.ours_detection:part", settings),
        THEIRS: Contestant(
            "benchmarks.rivals.torchvision_parts:part",
            settings | {"mode": mode},
            install="pip install torch==2.13.0 torchvision==0.28.0",
            python=python,
        ),
    }
    contest.run_turns(results, case, contestants, task, rounds, tolerance=TOLERANCE)


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.set_defaults(rounds=5)
    parser.add_argument("--sizes", nargs="+", default=["atto", "tiny"])
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--torchvision", metavar="PYTHON", help="Python of an environment with torchvision")
    args = parser.parse_args(argv)

    title = f"Mask R-CNN with 80 classes at {args.image_size} x {args.image_size} in float32"
    parts, others = Results(f"{title}, cut off after each part", REFERENCE), Results(f"{title}, single parts", OURS)
    for size in args.sizes:
        by_parts(parts, DetectionTask.of(size, 1, args.image_size), "prediction", PREDICTION, args.rounds)
        by_parts(parts, DetectionTask.of(size, 2, args.image_size), "training", TRAINING, args.rounds)
        beside_torch(others, size, args.image_size, args.rounds, args.torchvision)
    contest.finish(parts, "two_stage", args.out)
    contest.finish(others, "two_stage_torchvision", args.out)


if __name__ == "__main__":
    main()
