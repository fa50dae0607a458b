"""Waits for all workers before TensorFlow does: TensorFlow names no missing worker and has no time limit.

TensorFlow's own wait cannot be ended by Ctrl-C or SIGTERM either. Here each worker connects to the chief, at the
address that TensorFlow will use later, and sends its number. When all workers are connected and answer, the chief lets
them go. A worker whose number is already taken is refused. The chief also connects to its own address, to detect
another process that believes to be the chief.
"""

import contextlib
import errno
import logging
import os
import socket
import time

from ..errors import TrainingError

logger = logging.getLogger(__name__)

# Maximum time in seconds that workers wait for each other.
PATIENCE = 3600

# Seconds without an answer after which a connection counts as lost, and seconds between two attempts.
TIMEOUT, PAUSE = 5, 0.5

HELLO = "cnv2 {:06d}"
THERE, YES, GO, TAKEN = b"?", b"!", b".", b"x"

# Number of random bytes by which the chief recognises its own connection.
NONCE = 8


def meet(addresses, worker, patience=PATIENCE):
    """Returns when all workers are connected.

    Args:
        addresses: "host:port" of all workers, the chief first.
        worker: Index of this worker.
        patience: Maximum time to wait, in seconds.

    Raises:
        TrainingError: If a worker is missing after this time; on the chief, the message names all that are missing.
            Raised at once if another process has the same worker number.
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
                logger.warning("Refused another process that claims to be worker %d", number)
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
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # both mean: IPv6 is turned off
                    raise
        return socket.create_server(("", port))
    except OSError as error:
        raise TrainingError(f"The port of this worker must be free. Received: {address} ({error})") from error


def _connect(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT)


def _call_own_address(address, nonce, stack):
    """Returns a connection to the chief's address, or `None` if it is not reachable from the chief's own network."""
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
    except OSError:  # no data yet
        return False


def _refuse(connection):
    with contextlib.suppress(OSError):
        connection.sendall(TAKEN)


def _taken(worker):
    return TrainingError(
        f"Another process is worker {worker} already: give each process its own number. Received: worker {worker}"
    )


def _read(connection, size):
    """Reads `size` bytes, or fewer if the connection ends or times out."""
    connection.settimeout(TIMEOUT)
    content = b""
    with contextlib.suppress(OSError):
        while len(content) < size and (more := connection.recv(size - len(content))):
            content += more
    return content


def _number(connection):
    """Returns the number of the worker that connects, or `None` if it is not a worker."""
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
        except OSError:  # the chief has not started yet, or has ended
            word = None
        if word == GO:
            return
        if word == TAKEN:
            raise _taken(worker)
        time.sleep(PAUSE)
    raise TrainingError(f"Not all workers came in time. Worker {worker} has waited for worker 0 ({address})")


def _last_word(chief, end):
    """Answers the chief's questions, then returns its final byte; empty if the connection is lost."""
    while time.monotonic() < end:
        try:
            word = chief.recv(1)
        except TimeoutError:
            continue
        if word != THERE:
            return word
        chief.sendall(YES)
    return b""
