"""Start-up in fresh processes: the import, building tiny, loading weights and the first prediction.

    python -m benchmarks.startup [--rounds 5]

The first prediction is of one image and includes tracing and compilation; torch.compile uses its cache from earlier
processes. All contestants have the same weights and must output the same logits, except keras.applications, whose
ConvNeXt is V1.
"""

import contextlib
import os
import subprocess
import sys

from benchmarks import contest, inference
from benchmarks.measure import Turn, rotated
from benchmarks.report import Results
from benchmarks.tasks import Task
from benchmarks.workers import ROOT, Contestant

REFERENCE = inference.REFERENCE
V1 = "keras.applications, V1"
CONTESTANTS = {
    **{name: each for name, each in inference.CONTESTANTS.items() if name != "matrix products alone"},
    V1: Contestant("benchmarks.rivals.keras_applications:inference", {"check": False}),
}
# Cases, and the phases of a `Worker` that each consists of.
CASES = {
    "building tiny and loading its weights": ("build",),
    "the first prediction, after that": ("first",),
    "all, with imports": ("import", "build", "first"),
}

OURS = """
import time
clock = [time.perf_counter()]
import keras
clock.append(time.perf_counter())
import keras_cnv2
clock.append(time.perf_counter())
model = keras_cnv2.ConvNeXtV2Tiny()
clock.append(time.perf_counter())
assert model.count_params() == keras_cnv2.sizes.get_size("tiny").parameters
print(*(end - start for start, end in zip(clock, clock[1:])))
"""


def time_ours(number):
    """Times keras_cnv2 in a fresh process. Yields the case and the `Turn` of each of its steps."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run([sys.executable, "-c", OURS], capture_output=True, text=True, cwd=ROOT, env=environment)
    if run.returncode:
        raise RuntimeError(run.stderr)
    keras, ours, tiny = map(float, run.stdout.split()[-3:])
    yield "import", Turn("keras", number, keras)
    yield "import", Turn("keras_cnv2, after keras", number, ours)
    yield "building tiny", Turn("keras_cnv2, initial values", number, tiny)


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.set_defaults(rounds=5)
    args = parser.parse_args(argv)

    results = Results("Start-up in fresh processes", REFERENCE)
    task = Task.of("tiny", 1)
    for number in range(args.rounds):
        for case, turn in time_ours(number):
            results.add(case, 0, turn)
    with contest.made_up_weights(task) as task:
        for number in range(args.rounds):
            with contextlib.ExitStack() as stack:
                workers = contest.start(rotated(CONTESTANTS, number), task, stack)
                contest.check_equal(workers, REFERENCE, (V1,), inference.TOLERANCE)
                for name, worker in workers.items():
                    for case, phases in CASES.items():
                        results.add(case, 0, Turn(name, number, sum(worker.phases[phase] for phase in phases)))
    contest.finish(results, "startup", args.out)


if __name__ == "__main__":
    main()
