"""Waiting for the other workers before TensorFlow does: it names nobody, has no limit and hears no Ctrl-C or SIGTERM.

Each worker connects to the chief at the address that TensorFlow will have, and says its number. Once all are there and
answer, the chief sends them off. Who says a number that another one has is refused. The chief calls its own address,
too, where another process may be that takes itself for the chief.
"""

import contextlib
import errno
import logging
import os
import socket
import time

from ..errors import TrainingError

logger = logging.getLogger(__name__)

# Seconds that workers wait for each other.
PATIENCE = 3600

# Seconds until what is silent counts as gone, and between two attempts.
TIMEOUT, PAUSE = 5, 0.5

HELLO = "cnv2 {:06d}"
THERE, YES, GO, TAKEN = b"?", b"!", b".", b"x"

# Bytes by which the chief knows its own call.
NONCE = 8


def meet(addresses, worker, patience=PATIENCE):
    """Returns once all workers are there.

    Args:
        addresses: "host:port" of all workers, the chief first.
        worker: Number of this worker.
        patience: Seconds.

    Raises:
        TrainingError: If they are not within so many seconds; on the chief, it names those that are missing. At once,
            if another process is this worker.
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
        nonce = os.urandom(NONCE)
        own_call = _call_own_address(addresses[0], nonce, stack)
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
            if own_call and _is_refused(own_call):
                raise _taken(0)
            try:
                connection, _ = server.accept()
            except TimeoutError:
                if missing != said:
                    logger.warning("Worker 0 waits for %s", ", ".join(said := missing))
                continue
            number = _number(stack.enter_context(connection))
            if (number == 0 and _read(connection, NONCE) != nonce) or (number in there and _answers(there[number])):
                logger.warning("Another process that says it is worker %d is refused", number)
                _refuse(connection)
            elif number in others:
                there[number] = connection
        for connection in there.values():
            connection.sendall(GO)


def _server(address):
    port = int(address.rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # IPv6 is known here and turned off
                    raise
        return socket.create_server(("", port))
    except OSError as error:
        raise TrainingError(f"The port of this worker must be free. Received: {address} ({error})") from error


def _connect(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT)


def _call_own_address(address, nonce, stack):
    """A connection to the chief's address, or `None` where it leads nowhere, as its own may from inside a network."""
    try:
        connection = stack.enter_context(_connect(address))
        connection.sendall(HELLO.format(0).encode() + nonce)
    except OSError:
        return None
    connection.setblocking(False)
    return connection


def _is_refused(connection):
    try:
        return connection.recv(1) == TAKEN
    except OSError:  # nothing there
        return False


def _refuse(connection):
    with contextlib.suppress(OSError):
        connection.sendall(TAKEN)


def _taken(worker):
    return TrainingError(
        f"Another process is worker {worker} already: give each a number of its own. Received: worker {worker}"
    )


def _read(connection, size):
    """So many bytes; fewer, if no more come."""
    connection.settimeout(TIMEOUT)
    content = b""
    with contextlib.suppress(OSError):
        while len(content) < size and (more := connection.recv(size - len(content))):
            content += more
    return content


def _number(connection):
    """The number of the worker that connects, or `None` if it is none."""
    name, _, number = _read(connection, len(HELLO.format(0))).partition(b" ")
    return int(number) if name == b"cnv2" and number.isdigit() else None


def _answers(connection):
    try:
        connection.sendall(THERE)
        return connection.recv(1) == YES
    except OSError:
        return False


def _wait_for_chief(address, worker, end):
    logger.warning("Worker %d waits for worker 0 (%s) and all others", worker, address)
    while time.monotonic() < end:
        try:
            with _connect(address) as chief:
                chief.sendall(HELLO.format(worker).encode())
                word = _last_word(chief, end)
        except OSError:  # not there yet, or gone again
            word = None
        if word == GO:
            return
        if word == TAKEN:
            raise _taken(worker)
        time.sleep(PAUSE)
    raise TrainingError(f"Not all workers came in time. Worker {worker} has waited for worker 0 ({address})")


def _last_word(chief, end):
    """The chief's word, after its questions; empty if it is gone."""
    while time.monotonic() < end:
        try:
            word = chief.recv(1)
        except TimeoutError:
            continue
        if word != THERE:
            return word
        chief.sendall(YES)
    return b""
