"""Waiting for the other workers before TensorFlow does: it names nobody, has no limit and hears no Ctrl-C or SIGTERM.

Each worker connects to the chief at the address that TensorFlow will have, and says its number. Once all are there and
answer, the chief sends them off.
"""

import contextlib
import logging
import socket
import time

from ..errors import TrainingError

logger = logging.getLogger(__name__)

# Seconds that workers wait for each other.
PATIENCE = 3600

# Seconds until what is silent counts as gone, and between two attempts.
TIMEOUT, PAUSE = 5, 0.5

HELLO = "cnv2 {:06d}"
THERE, YES, GO = b"?", b"!", b"."


def meet(addresses, worker, patience=PATIENCE):
    """Returns once all workers are there.

    Args:
        addresses: "host:port" of all workers, the chief first.
        worker: Number of this worker.
        patience: Seconds.

    Raises:
        TrainingError: If they are not within so many seconds; on the chief, it names those that are missing.
    """
    end = time.monotonic() + patience
    if worker == 0:
        _wait_for_workers(addresses, end)
    else:
        _wait_for_chief(addresses[0], worker, end)


def _wait_for_workers(addresses, end):
    others = range(1, len(addresses))
    said = None
    with contextlib.ExitStack() as stack, _server(addresses[0]) as server:
        server.settimeout(PAUSE)
        there = {}
        while True:
            missing = [f"worker {number} ({addresses[number]})" for number in others if number not in there]
            if not missing:
                there = {number: connection for number, connection in there.items() if _answers(connection)}
                if len(there) == len(others):
                    break
                continue
            if time.monotonic() > end:
                raise TrainingError(f"Not all workers came in time. Missing: {', '.join(missing)}")
            try:
                connection, _ = server.accept()
            except TimeoutError:
                if missing != said:
                    logger.warning("Worker 0 waits for %s", ", ".join(said := missing))
                continue
            number = _number(stack.enter_context(connection))
            if number in others:
                there[number] = connection
        for connection in there.values():
            connection.sendall(GO)


def _server(address):
    port = int(address.rpartition(":")[2])
    try:
        return socket.create_server(("", port))
    except OSError as error:
        raise TrainingError(f"The port of this worker must be free. Received: {address} ({error})") from error


def _number(connection):
    """The number of the worker that connects, or `None` if it is none."""
    connection.settimeout(TIMEOUT)
    try:
        name, number = connection.recv(len(HELLO.format(0))).split()
        return int(number) if name == b"cnv2" else None
    except (OSError, ValueError):
        return None


def _answers(connection):
    try:
        connection.sendall(THERE)
        return connection.recv(1) == YES
    except OSError:
        return False


def _wait_for_chief(address, worker, end):
    host, _, port = address.rpartition(":")
    logger.warning("Worker %d waits for worker 0 (%s) and all others", worker, address)
    while time.monotonic() < end:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT) as chief:
                chief.sendall(HELLO.format(worker).encode())
                if _is_sent_off(chief, end):
                    return
        except OSError:  # not there yet, or gone again
            pass
        time.sleep(PAUSE)
    raise TrainingError(f"Not all workers came in time. Worker {worker} has waited for worker 0 ({address})")


def _is_sent_off(chief, end):
    """Waits for the chief's word; false if it is gone."""
    while time.monotonic() < end:
        try:
            word = chief.recv(1)
        except TimeoutError:
            continue
        if word == THERE:
            chief.sendall(YES)
        else:
            return word == GO
    return False
