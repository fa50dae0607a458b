"""Processes that work together over the loopback interface, for tests. Every wait is bounded."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def free_addresses(count):
    """Addresses on this machine that nobody listens to."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


class Workers:
    """Worker processes, each with its TF_CONFIG. A context: at its end all are dead.

    Args:
        folder: Path, where their outputs go.
        commands: One list of arguments of Python a worker. `None`: this worker is started later, with `start`.
    """

    def __init__(self, folder, commands):
        self.folder = Path(folder)
        self.addresses = free_addresses(len(commands))
        self.processes = {}
        for number, command in enumerate(commands):
            if command is not None:
                self.start(number, command)

    def start(self, number, command):
        cluster = {"worker": self.addresses}
        config = {"cluster": cluster, "task": {"type": "worker", "index": number}} if len(self.addresses) > 1 else {}
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "TF_CONFIG": json.dumps(config),
        }
        with open(self._file(number), "wb") as output:
            self.processes[number] = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _file(self, number):
        return self.folder / f"worker-{number}.txt"

    def output(self, number):
        return self._file(number).read_text(errors="replace")

    def send(self, number, kind):
        self.processes[number].send_signal(kind)

    def wait(self, seconds, numbers=None):
        """The exit codes of these workers, by default of all."""
        end = time.monotonic() + seconds
        chosen = sorted(self.processes) if numbers is None else numbers
        try:
            return [self.processes[number].wait(max(end - time.monotonic(), 0.1)) for number in chosen]
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"Not ended after {seconds} s:\n{self._all()}") from error

    def wait_for(self, condition, seconds):
        """Waits until a function is true while all workers live."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"Nothing for {seconds} s:\n{self._all()}"
            assert all(each.poll() is None for each in self.processes.values()), self._all()
            time.sleep(0.05)

    def succeed(self, seconds):
        """Waits for the end of all, which must be a good one."""
        assert self.wait(seconds) == [0] * len(self.processes), self._all()

    def _all(self):
        return "\n".join(f"--- worker {number}\n{self.output(number)[-6000:]}" for number in self.processes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(10)
