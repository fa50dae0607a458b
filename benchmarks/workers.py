"""Contestants in processes of their own: one works, the others wait. `python -m benchmarks.workers` is such a process.

A contestant is a function, named "module:function", that takes a `Task` and settings, prepares all it can, and returns
a function without arguments: every call does the work once and returns what came out as a NumPy array. Peaks of memory
are those of the process, less what it had before it prepared, or what the function's attribute `peak` says, if it has
one: a GPU's.
"""

import importlib
import os
import pickle
import statistics
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent


class Missing(Exception):
    """What a contestant imports is not there."""


@dataclass(frozen=True)
class Contestant:
    """What to run, and how its process is set up.

    Args:
        function: "module:function".
        settings: Keyword arguments of the function, beside the task.
        environment: Variables of the process.
        install: How to get what it needs, for whoever does not have it.
    """

    function: str
    settings: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    install: str = 'pip install -e ".[backends]"'


class Worker:
    """A process with one contestant, ready to run. A context: the process ends with it.

    `phases` has the seconds of its start: "import", "build" and "first" (the first call, with all tracing and
    compiling), and `outputs` a list of what the first calls returned.

    Raises:
        Missing: If a package is not installed.
        RuntimeError: If the contestant fails, with its traceback.
    """

    def __init__(self, contestant, task, calls=1):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workers"],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **contestant.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self.phases, self.outputs = self._ask(contestant.function, task, contestant.settings, calls)
        except BaseException:
            self.close()
            raise

    def turn(self, seconds=0.5):
        """Runs for some time, at least once. Returns what a `benchmarks.measure.Turn` holds after the round."""
        return self._ask(seconds)

    def _ask(self, *message):
        pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()
        try:
            kind, answer = pickle.load(self._process.stdout)
        except EOFError:
            raise RuntimeError(f"The contestant's process died: exit code {self._process.wait()}") from None
        if kind == "missing":
            raise Missing(answer)
        if kind == "error":
            raise RuntimeError(answer)
        return answer

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def resident(peak=False, process="self"):
    """Bytes of memory a process has, or had at most since `forget_peak`. `None` where Linux does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def forget_peak(process="self"):
    """From here on, `resident(peak=True)` counts anew."""
    try:
        Path(f"/proc/{process}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak(run, before):
    """The peak of memory of a contestant whose process had so much before it prepared."""
    return run.peak() if hasattr(run, "peak") else resident(peak=True) - before


def cpu_seconds():
    """Seconds that all cores together worked so far, for whomever, and that this process did. `None`: not Linux."""
    try:
        user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    except OSError:
        return None
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK"), time.process_time()


def others_share(before, after, seconds):
    """The share of all cores' time that others had between two calls of `cpu_seconds`."""
    if before is None:
        return None
    (all_before, own_before), (all_after, own_after) = before, after
    return max(0, all_after - all_before - (own_after - own_before)) / (seconds * os.cpu_count())


def time_turn(run, seconds):
    """Seconds of each call in a turn of about so many seconds; the first call fills the caches and is not timed."""
    run()
    times = []
    while not times or sum(times) < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def _start(function, task, settings, calls):
    """Prepares a contestant. Returns its function, the memory before it was built, phases and first outputs."""
    clock = [time.perf_counter()]
    module, name = function.split(":")
    prepare = getattr(importlib.import_module(module), name)
    before = resident()
    clock.append(time.perf_counter())
    run = prepare(task, **settings)
    clock.append(time.perf_counter())
    outputs = [run()]
    clock.append(time.perf_counter())
    outputs += [run() for _ in range(calls - 1)]
    phases = {phase: end - start for phase, start, end in zip(("import", "build", "first"), clock, clock[1:])}
    return run, before, (phases, outputs)


def _turn(run, before, seconds):
    measurable, start, cpu = forget_peak(), time.perf_counter(), cpu_seconds()
    median = statistics.median(time_turn(run, seconds))
    others = others_share(cpu, cpu_seconds(), time.perf_counter() - start)
    return median, peak(run, before) if measurable else None, others


def main():
    # Answers go where stdout went; what contestants print must not come between.
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(kind, content):
        pickle.dump((kind, content), answers)
        answers.flush()

    try:
        run, before, started = _start(*pickle.load(questions))
        answer("answer", started)
        while True:
            (seconds,) = pickle.load(questions)
            answer("answer", _turn(run, before, seconds))
    except EOFError:
        pass
    except ImportError as error:
        answer("missing", str(error))
    except Exception:
        answer("error", traceback.format_exc())


if __name__ == "__main__":
    main()
