import errno
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.workers import free_addresses
from training.distribute import rendezvous
from training.errors import TrainingError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(rendezvous, "PAUSE", 0.05)
    monkeypatch.setattr(rendezvous, "TIMEOUT", 0.3)


class Worker(threading.Thread):
    def __init__(self, addresses, number, patience=10):
        super().__init__(daemon=True)
        self.arguments = addresses, number, patience
        self.result = None
        self.start()

    def run(self):
        try:
            rendezvous.meet(*self.arguments)
            self.result = "met"
        except TrainingError as error:
            self.result = str(error)


def results(*workers):
    for worker in workers:
        worker.join(15)
    return [worker.result for worker in workers]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_meet_whoever_comes_late(order):
    addresses = free_addresses(3)
    workers = []
    for number in order:
        time.sleep(0.2)
        assert all(worker.result is None for worker in workers), "it has not waited"
        workers.append(Worker(addresses, number))
    assert results(*workers) == ["met"] * 3
    with socket.create_server(("", int(addresses[0].split(":")[1]))):
        pass  # the port is TensorFlow's now


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")
def test_addresses_of_ipv6():
    addresses = [f"[::1]:{address.rpartition(':')[2]}" for address in free_addresses(2)]
    assert results(*(Worker(addresses, number) for number in (0, 1))) == ["met"] * 2


@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_system_without_ipv6(monkeypatch, error):
    create = socket.create_server

    def refuse(address, family=socket.AF_INET, **kwargs):
        if family == socket.AF_INET6:
            raise OSError(error, "no IPv6")
        return create(address, family=family, **kwargs)

    monkeypatch.setattr(socket, "create_server", refuse)
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
    addresses = free_addresses(2)
    assert results(*(Worker(addresses, number) for number in (0, 1))) == ["met"] * 2


def test_a_number_that_another_has(caplog):
    addresses = free_addresses(3)
    chief, first = Worker(addresses, 0), Worker(addresses, 1)
    time.sleep(0.3)
    start = time.monotonic()
    message = "Another process is worker 1 already: give each process its own number. Received: worker 1"
    assert results(Worker(addresses, 1)) == [message]
    assert time.monotonic() - start < 3
    assert "Refused another process that claims to be worker 1" in caplog.messages
    assert results(chief, first, Worker(addresses, 2)) == ["met"] * 3


def test_two_chiefs(monkeypatch):
    """The second one's address is the first one's, on another machine."""
    addresses = free_addresses(2)
    port = int(addresses[0].rpartition(":")[2])
    chief = Worker(addresses, 0)
    time.sleep(0.3)
    with monkeypatch.context() as patch:
        elsewhere = socket.create_server(("", 0))
        patch.setattr(socket, "create_server", lambda *args, **kwargs: elsewhere)
        second = Worker(addresses, 0)
        assert "Another process is worker 0 already" in results(second)[0]
    assert chief.result is None
    assert results(chief, Worker(addresses, 1)) == ["met"] * 2
    with socket.create_server(("", port)):
        pass


def test_a_chief_that_cannot_call_itself(monkeypatch):
    """As behind some routers."""
    addresses, refused = free_addresses(2), threading.Event()

    def refuse(*_, **__):
        refused.set()
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(socket, "create_connection", refuse)
        chief = Worker(addresses, 0)
        assert refused.wait(10)
    assert results(chief, Worker(addresses, 1)) == ["met"] * 2


def test_a_worker_that_came_and_died_is_waited_for():
    addresses = free_addresses(3)
    chief = Worker(addresses, 0)
    time.sleep(0.2)
    host, port = addresses[0].split(":")
    for greeting in (b"cnv2 000001", b"GET / HTTP/1.1\r\n\r\n", b"cnv2 000009", b""):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(greeting)
    other = Worker(addresses, 2)
    time.sleep(0.5)
    assert chief.result is other.result is None
    assert results(chief, other, Worker(addresses, 1)) == ["met"] * 3


def test_missing_workers_are_named(caplog):
    addresses = free_addresses(3)
    chief, other = Worker(addresses, 0, 1), Worker(addresses, 1, 1)
    missing = f"worker 2 ({addresses[2]})"
    in_vain = f"Worker 1 has waited for worker 0 ({addresses[0]})"
    assert results(chief) == [f"Not all workers came in time. Missing: {missing}"]
    assert results(other) == [f"Not all workers came in time. {in_vain}"]
    assert f"Worker 0 waits for {missing}" in caplog.text


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(TrainingError, match=f"port of this worker must be free. Received: {address}"):
            rendezvous.meet([address, "localhost:1"], 0)


def test_who_waits_can_be_stopped():
    def start(worker):
        code = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from training.distribute import rendezvous; "
            f"print('waiting', flush=True); rendezvous.meet({free_addresses(2)}, {worker})"
        )
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    with start(0) as chief, start(1) as other:
        for process, kind in ((chief, signal.SIGTERM), (other, signal.SIGINT)):
            assert process.stdout.readline() == b"waiting\n"
            time.sleep(0.2)
            process.send_signal(kind)
            assert process.wait(10) != 0
