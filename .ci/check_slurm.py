"""Submits docs/slurm.sh to the SLURM of .ci/slurm, as two tasks on this machine.

python .ci/check_slurm.py FOLDER

A run that nothing happens to; one that is preempted twice, goes on and ends with the same numbers; and one whose time
is over. FOLDER, an empty one, is for the runs and the jobs' logs.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent

# What this machine differs in from those of the script.
MACHINE = "--nodes=1 --ntasks-per-node=2 --gpus-per-node=0 --cpus-per-task=1"
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}

# Handwritten digits, and a model of a few thousand numbers.
RECIPE = (
    "--recipe quickstart --model none --depths 1,1,1,1 --dims 4,6,8,10 --decoder-dim 8 --image-size 16 --batch-size 8 "
    "--checkpoint-steps 50"
)
EPOCHS = 6

# Seconds that anything may take, and between two looks at it.
PATIENCE, PAUSE = 300, 0.5

# That of tests/training/distribute/test_distribute.py.
TOLERANCE = 1e-5


class Failure(Exception):
    """Something is not as it must be."""


def command(*arguments, **environment):
    """What a command prints."""
    environment = os.environ | environment
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Failure(f"{' '.join(arguments)} ended with code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


class Job:
    """A job of docs/slurm.sh, from when it is submitted.

    Args:
        folder: Path, where its log and its run go.
        name: Name of the run.
        epochs: How many it has.
        minutes: When its time is over.
    """

    def __init__(self, folder, name, epochs=EPOCHS, minutes=30):
        self.run, self.output = folder / name, folder / f"{name}.log"
        machine = [*MACHINE.split(), f"--time={minutes}", f"--output={self.output}"]
        training = [*RECIPE.split(), f"--name={name}", f"--epochs={epochs}"]
        submit = ["sbatch", "--parsable", *machine, "docs/slurm.sh", *training]
        self.number = command(*submit, RUNS=str(folder), **ENVIRONMENT)
        self.begun = time.monotonic()

    def state(self):
        """What SLURM knows of it: name -> text."""
        words = command("scontrol", "--oneliner", "show", "job", self.number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def log(self):
        return self.output.read_text() if self.output.exists() else ""

    def epochs(self):
        """What was written of each epoch."""
        path = self.run / "log.json"
        return json.loads(path.read_text()) if path.exists() else []

    def saved(self):
        """The checkpoints: step -> path."""
        return {int(path.stem.removeprefix("step-")): path for path in self.run.glob("checkpoints/step-*.safetensors")}

    def check(self, holds, what):
        if not holds:
            raise Failure(f"{what}: this is not so. The job is {self.state()['JobState']}, its log:\n{self.log()}")

    def wait(self, what, condition):
        """Waits until something is so. Returns the seconds since the last one was."""
        end = time.monotonic() + PATIENCE
        while not condition():
            self.check(self.state()["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "COMPLETED"), what)
            self.check(time.monotonic() < end, what)
            time.sleep(PAUSE)
        before, self.begun = self.begun, time.monotonic()
        return self.begun - before

    def wait_for_workers(self):
        steps = ["squeue", "--noheader", "--steps", "--jobs", self.number, "--format=%i"]
        return self.wait("The workers are started", lambda: f"{self.number}.0" in command(*steps))

    def wait_in_queue(self, restarts):
        """Waits until it is in the queue again, for so many times now."""
        return self.wait("It is in the queue again", lambda: self.state()["Restarts"] == str(restarts))

    def wait_for_end(self):
        return self.wait("It ends well", lambda: self.state()["JobState"] == "COMPLETED")

    def check_saved(self):
        """Checks that both workers have ended with 75. Returns the step that is saved."""
        self.check(self.log().count("ended by SIGTERM; the same command goes on") == 2, "Both workers say why they end")
        self.check("tasks 0-1: Exited with exit code 75" in self.log(), "Both workers end with 75")
        return max(self.saved())


def outrank():
    """Submits a job that takes the machine from all others, and ends at once."""
    return command("sbatch", "--parsable", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true")


def is_open(port):
    """Whether somebody listens at a port of this machine."""
    try:
        with socket.create_connection((socket.gethostname(), port), timeout=1):
            return True
    except OSError:
        return False


def undisturbed(folder):
    """A run that nothing happens to."""
    job = Job(folder, "undisturbed")
    job.wait_for_workers()
    for port in (8888, 8889):
        job.wait(f"A worker has port {port}", lambda port=port: is_open(port))
    seconds = job.wait_for_end()
    print(f"undisturbed: {job.epochs()[-1]['step']} steps by two workers, {seconds:.0f} s")
    return job


def preempted(folder):
    """A run that has to go twice: before its training begins, and in the middle of it. Returns it and the step."""
    job = Job(folder, "preempted")
    job.wait_for_workers()
    outrank()
    seconds = job.wait_in_queue(1)
    job.check(not job.saved(), "It is preempted before its training begins")
    print(f"preempted while it starts: in the queue again after {seconds:.1f} s, for {job.wait_for_workers():.0f} s")

    job.wait("An epoch is done", job.epochs)
    outrank()
    seconds = job.wait_in_queue(2)
    step, before = job.check_saved(), job.epochs()
    print(f"preempted while it trains: code 75, saved at step {step}; ", end="")
    print(f"in the queue again after {seconds:.1f} s, for {job.wait_for_workers():.0f} s")

    seconds, after = job.wait_for_end(), job.epochs()
    job.check(after[: len(before)] == before, "It goes on after the epochs that it had done")
    job.check(step < after[-1]["step"], "It is preempted before its end")
    print(f"started again: the other {after[-1]['step'] - step} of {after[-1]['step']} steps, {seconds:.0f} s")
    return job, step


def compare(one, two, step):
    """Compares the last checkpoints of two runs and their losses. The second run was interrupted at this step."""
    (last, first), (other_last, second) = (max(job.saved().items()) for job in (one, two))
    arrays, others = load_file(first), load_file(second)
    two.check((last, arrays.keys()) == (other_last, others.keys()), "The last checkpoints are of the same kind")
    in_arrays = max(largest_difference(arrays[name], others[name]) for name in arrays)
    rows, starts = one.epochs(), [0, *(row["step"] for row in one.epochs())]
    # The figures of the epoch within which it was interrupted are those of the steps since.
    whole = [number for number, row in enumerate(rows) if not starts[number] < step < row["step"]]
    in_losses = max(abs(rows[number]["loss"] - two.epochs()[number]["loss"]) for number in whole)
    print(f"largest differences: {in_arrays:g} in the last checkpoints' {len(arrays)} arrays, ", end="")
    print(f"{in_losses:g} in the losses of {len(whole)} epochs")
    two.check(max(in_arrays, in_losses) <= TOLERANCE, f"The differences are at most {TOLERANCE:g}")


def largest_difference(one, two):
    return float(np.max(np.abs(one.astype("f8") - two.astype("f8")), initial=0))


def out_of_time(folder):
    """A run without end in a job of 4 minutes, of which the script's --signal leaves it the first one or two."""
    job = Job(folder, "out_of_time", epochs=10**6, minutes=4)
    job.wait_for_workers()
    seconds = job.wait_in_queue(1)
    step = job.check_saved()
    command("scancel", job.number)
    print(f"out of time: code 75, saved at step {step}; in the queue again {seconds:.0f} s after its start")


def main(folder):
    print(command("sinfo", "--version"))
    one = undisturbed(folder)
    two, step = preempted(folder)
    compare(one, two, step)
    out_of_time(folder)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    try:
        main(Path(sys.argv[1]))
    except (Failure, subprocess.TimeoutExpired) as error:
        sys.exit(f"error: {error}")
