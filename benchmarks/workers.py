"""Runs contestants in separate processes; one works while the others wait. `python -m benchmarks.workers` is such one.

A contestant is a function, named "module:function", that takes a `Task` and settings, prepares everything, and returns
a function without arguments. Each call of the latter does the work once and returns the output as a NumPy array. Peak
memory is that of the process, minus its memory before the preparation; or, e.g. for GPUs, the result of the function's
attribute `peak`, if it has one.
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
    """A package that a contestant imports is not installed."""


@dataclass(frozen=True)
class Contestant:
    """Describes a function to run and the set-up of its process.

    Args:
        function: "module:function".
        settings: Keyword arguments of the function, in addition to the task.
        environment: Environment variables of the process.
        install: Command that installs the packages it needs.
        python: Path of the Python that runs it; `None` for this one.
    """

    function: str
    settings: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    install: str = 'pip install -e ".[backends]"'
    python: str | None = None


class Worker:
    """A process with one contestant, ready to run. As a context, it ends the process.

    `phases` holds the seconds of its start: "import", "build" and "first" (the first call, including tracing and
    compilation); `outputs` is a list of the results of the first calls.

    Raises:
        Missing: If a package is not installed.
        RuntimeError: If the contestant fails; the message is its traceback.
    """

    def __init__(self, contestant, task, calls=1):
        self.process = subprocess.Popen(
            [contestant.python or sys.executable, "-m", "benchmarks.workers"],
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
        """Runs for some time, at least once. Returns the fields of a `benchmarks.measure.Turn` from `seconds` on."""
        return self._ask(seconds)

    def _ask(self, *message):
        pickle.dump(message, self.process.stdin)
        self.process.stdin.flush()
        try:
            kind, answer = pickle.load(self.process.stdout)
        except EOFError:
            raise RuntimeError(f"The contestant's process died: exit code {self.process.wait()}") from None
        if kind == "missing":
            raise Missing(answer)
        if kind == "error":
            raise RuntimeError(answer)
        return answer

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def resident(peak=False, process="self"):
    """Returns a process's memory in bytes, or its peak since `forget_peak`. `None` if this is not Linux."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def forget_peak(process="self"):
    """Resets the peak of `resident(peak=True)`. Returns whether this is possible."""
    try:
        Path(f"/proc/{process}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak(run, before):
    """Returns the peak memory of a contestant whose process had `before` bytes before the preparation."""
    return run.peak() if hasattr(run, "peak") else resident(peak=True) - before


def cpu_seconds():
    """Returns the CPU seconds used so far by all processes on all cores, and by this process. `None` if not Linux."""
    try:
        user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    except OSError:
        return None
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK"), time.process_time()


def others_share(before, after, seconds):
    """Returns the share of all cores' time that other processes used between two calls of `cpu_seconds`."""
    if before is None:
        return None
    (all_before, own_before), (all_after, own_after) = before, after
    return max(0, all_after - all_before - (own_after - own_before)) / (seconds * os.cpu_count())


def time_turn(run, seconds):
    """Calls `run` for about `seconds`. Returns the seconds of each call except the first, which fills the caches."""
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
    # Answers go to the original stdout. Stdout is redirected to stderr, so that prints of contestants do not mix with
    # them.
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
