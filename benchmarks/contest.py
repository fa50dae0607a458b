"""Shared code of benchmarks that compare contestants: options, weights, checks, and the turns of a case."""

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import take_turns
from benchmarks.workers import Contestant, Missing, Worker

WEIGHTS = Contestant("benchmarks.tasks:weights_writer")


def parser_of(module_doc):
    """Returns an `ArgumentParser` with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=module_doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="folder for the CSV and the Markdown table")
    return parser


@contextlib.contextmanager
def made_up_weights(task):
    """A context that yields the task with random weights in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        task = dataclasses.replace(task, weights=folder)
        Worker(WEIGHTS, task).close()  # the worker's first call writes the weights
        yield task


def start(contestants, task, stack, calls=1):
    """Starts a `Worker` for each of {name: Contestant} whose packages are installed. Returns them as {name: Worker}."""
    workers = {}
    for name, contestant in contestants.items():
        try:
            workers[name] = stack.enter_context(Worker(contestant, task, calls))
        except Missing as error:
            print(f"skipped: {name}: {error} ({contestant.install})", file=sys.stderr, flush=True)
    return workers


def check_equal(workers, reference, exempt, tolerance):
    """Raises an `AssertionError` unless all workers, except the `exempt` ones, have the outputs of the reference."""
    expected = np.stack(workers[reference].outputs)
    scale = np.abs(expected).max()
    for name, worker in workers.items():
        if name not in exempt:
            found = np.stack(worker.outputs)
            np.testing.assert_allclose(found, expected, atol=tolerance * scale, rtol=0, err_msg=name)


def run_case(results, case, contestants, task, rounds, **settings):
    """Adds a case to the results, with random weights in a folder that all contestants read. See `run_turns`."""
    with made_up_weights(task) as task:
        run_turns(results, case, contestants, task, rounds, **settings)


def run_turns(results, case, contestants, task, rounds, *, exempt=(), tolerance=0.0, calls=1):
    """Adds a case to the results: checks that all contestants have equal outputs, then measures them in turns."""
    with contextlib.ExitStack() as stack:
        workers = start(contestants, task, stack, calls)
        check_equal(workers, results.reference, exempt, tolerance)
        for turn in take_turns({name: worker.turn for name, worker in workers.items()}, rounds):
            results.add(case, task.batch, turn)
            print(f"{case}, round {turn.round + 1}: {turn.contestant} {turn.seconds * 1e3:.1f} ms", file=sys.stderr)


def finish(results, name, out, *more):
    """Prints the table and `more` Markdown, and writes them and the CSV into the folder `out` if there is one."""
    text = "\n\n".join([results.table(), *more])
    print(text)
    if out:
        results.write(out / f"{name}.csv")
        (out / f"{name}.md").write_text(text + "\n")
