"""Runs on several devices, by several workers, and with workers that die. All workers are on this machine."""

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tests.training.data.boxes.small import write_yolo
from tests.training.small import pretraining, source
from tests.workers import Workers
from training.commands.pretrain import Pretrain
from training.distribute.clusters import ClusterError
from training.distribute.devices import ONE_DEVICE, Devices
from training.distribute.preemption import EXIT_CODE
from training.distribute.strategies import check_gpus, open_devices
from training.errors import RecipeError, TrainingError
from training.loop import state

PROGRAM = ["-m", "tests.training.distribute.distributed_run"]

# A small Mask R-CNN and two steps of it.
MASK_RCNN = [
    *("--model", "none", "--depths", "1,1,1,1", "--dims", "4,6,8,10", "--image-size", 64, "--batch-size", 4),
    *("--head-width", 8, "--head-convs", 1, "--head-units", 8, "--proposals", 10, "--box-samples", 8),
    *("--iterations", 2, "--report-every", 1, "--warmup-iterations", 0, "--layer-decay", 1, "--drop-path", 0.2),
    *("--score-threshold", 0),
]

# Within so many seconds after a death the others have ended: docs/distribute.md says so.
END = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An .npz file of 26 training images and 11 for the test."""
    path = tmp_path_factory.mktemp("data") / "data.npz"
    train, test = source().train, source().test
    arrays = {f"train_{name}": array for name, array in train._asdict().items()}
    np.savez(path, **arrays, **{f"test_{name}": array for name, array in test._asdict().items()})
    return path


def pretrain(mode, data, folder, *options):
    """The command of 4 epochs of 3 steps, with a checkpoint at least every 2 steps."""
    fixed = ["--recipe", "small", "--epochs", 4, "--data", data, "--runs", folder]
    return [*PROGRAM, mode, "pretrain", *fixed, *options]


@pytest.fixture(scope="module")
def one_and_two(data, tmp_path_factory):
    """The folders of all phases on one device, and on two of the same process."""
    folder = tmp_path_factory.mktemp("alone")
    folders = folder / "one", folder / "two"
    for each in folders:
        each.mkdir()
    with Workers(folder, [[*PROGRAM, "all", data, "one", folders[0], "mirrored", folders[1]]]) as workers:
        workers.succeed(240)
    return folders


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run of one device that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    with Workers(folder, [pretrain("eager", data, folder)]) as workers:
        workers.succeed(120)
    return folder / "pretrain"


def arrays(run):
    """All arrays of the last checkpoint of a run: name -> array."""
    found = state.checkpoints(run / "checkpoints")
    return state.read(found[max(found)])[0]


def assert_same(one, two):
    one, two = arrays(one), arrays(two)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5, err_msg=name)


def assert_alike(one, two):
    """The last checkpoints of two runs, and what was logged of each epoch."""
    assert_same(one, two)
    expected, found = (json.loads((folder / "log.json").read_text()) for folder in (one, two))
    for row, other in zip(expected, found, strict=True):
        timing = {"seconds", "images_per_second"}
        values, others = ({k: v for k, v in each.items() if k not in timing} for each in (row, other))
        assert values == pytest.approx(others, abs=1e-5)


@pytest.mark.slow
class TestNumbers:
    """Losses, weights and counts do not depend on how many devices there are."""

    def test_two_devices(self, one_and_two):
        one, two = one_and_two
        assert_alike(one / "pretraining", two / "pretraining")
        self.assert_tuned_alike(one, two)

    def test_two_workers(self, one_and_two, data, tmp_path):
        """Of fine-tuning; TestFaults has those of pre-training."""
        one, _ = one_and_two
        with Workers(tmp_path, [[*PROGRAM, "tuned", data, one / "pretraining", tmp_path]] * 2) as workers:
            workers.succeed(240)
        self.assert_tuned_alike(one, tmp_path)

    @pytest.mark.release  # its processes take a minute of both cores
    def test_two_workers_of_mask_rcnn(self, tmp_path):
        """The draws of samples, the five losses, and what is found in each worker's pictures, boxes and masks."""
        data = write_yolo(tmp_path / "data", range(12))
        options = ["--recipe", "instances", "--data", data, "--validation-share", 0.3, *MASK_RCNN]
        one, two = tmp_path / "one", tmp_path / "two"
        for folder, workers in ((one, 1), (two, 2)):
            folder.mkdir()
            command = [*PROGRAM, "eager", "detect", *options, "--runs", folder]
            with Workers(folder, [command] * workers) as running:
                running.succeed(480)
        assert_alike(one / "detect", two / "detect")
        expected, found = (json.loads((folder / "detect" / "metrics.json").read_text()) for folder in (one, two))
        for name in ("AP", "AR100", "mask_AP", "mask_AR100"):
            assert found[name] == pytest.approx(expected[name], abs=1e-4)
        assert found["images"] == expected["images"]

    def assert_tuned_alike(self, one, two):
        assert_alike(one / "finetuning", two / "finetuning")
        expected, found = (json.loads((folder / "scores.json").read_text()) for folder in (one, two))
        assert expected["images"] == found["images"] == 11
        assert (expected["top1"], expected["classes"]) == (found["top1"], found["classes"])


@pytest.mark.slow
class TestFaults:
    @pytest.mark.release  # two of them are in all others
    def test_four_workers(self, whole, data, tmp_path):
        with Workers(tmp_path, [pretrain("eager", data, tmp_path)] * 4) as workers:
            workers.succeed(180)
        assert_alike(whole, tmp_path / "pretrain")
        assert not [path for path in tmp_path.rglob("*") if "writing" in path.name]

    def test_preempted_then_a_dead_worker_then_a_late_one(self, whole, data, tmp_path):
        command = pretrain("eager", data, tmp_path)
        saved = tmp_path / "pretrain" / "checkpoints"

        with Workers(tmp_path, [command] * 2) as workers:
            workers.wait_for(lambda: state.checkpoints(saved), 90)
            workers.send(1, signal.SIGTERM)
            assert workers.wait(END) == [EXIT_CODE, EXIT_CODE]
            assert "the same command goes on" in workers.output(0)
        steps = {*state.checkpoints(saved)}
        assert max(steps) < 12, "it ended before its end"

        with Workers(tmp_path, [command] * 2) as workers:
            workers.wait_for(lambda: {*state.checkpoints(saved)} - steps, 90)
            workers.send(1, signal.SIGKILL)
            assert workers.wait(END, [0]) == [1]
            assert f"error: Worker 1 ({workers.addresses[1]}) has died" in workers.output(0)
        assert max(state.checkpoints(saved)) < 12

        with Workers(tmp_path, [command, None]) as workers:
            late = f"Worker 0 waits for worker 1 ({workers.addresses[1]})"
            workers.wait_for(lambda: late in workers.output(0), 60)
            time.sleep(3)
            workers.start(1, command)
            workers.succeed(120)
        assert_same(whole, tmp_path / "pretrain")
        rows = json.loads((tmp_path / "pretrain" / "log.json").read_text())
        assert [row["step"] for row in rows] == [3, 6, 9, 12]

    def test_chief_that_dies_while_it_writes(self, whole, data, tmp_path):
        saved = tmp_path / "pretrain" / "checkpoints"
        commands = [pretrain(mode, data, tmp_path) for mode in ("dies", "eager")]
        with Workers(tmp_path, commands) as workers:
            assert workers.wait(120, [0]) == [-signal.SIGKILL]
            assert workers.wait(END, [1]) == [1]
            assert f"error: Worker 0 ({workers.addresses[0]}) has died" in workers.output(1)
        assert [*state.checkpoints(saved)] == [2]
        assert [*saved.glob(".writing-*")], "what it was writing"
        with Workers(tmp_path, [commands[1]] * 2) as workers:
            workers.succeed(120)
        assert_same(whole, tmp_path / "pretrain")
        assert not [*saved.glob(".writing-*")]

    def test_what_fails_on_one_fails_on_all(self, data, tmp_path):
        commands = [pretrain("eager", each, tmp_path) for each in (data, tmp_path / "no.npz")]
        with Workers(tmp_path, commands) as workers:
            assert workers.wait(90) == [1, 1]
            assert f"Worker 1 ({workers.addresses[1]}) cannot start: " in workers.output(0)
            assert "no.npz" in workers.output(0)


class TestStart:
    """Of two workers that are threads of this process."""

    @pytest.fixture
    def errors(self, tmp_path):
        """A function from the recipes of two workers, and from how they open their data, to their errors."""
        said, barrier = [None, None], threading.Barrier(2, timeout=30)

        class Worker(Devices):
            def gather(self, content):
                said[self.worker] = json.loads(json.dumps(content))
                barrier.wait()
                return said

        def start(number, recipe, open_data):
            run = Pretrain(recipe, tmp_path / "run", Worker(worker=number, addresses=("a:1", "b:2")))
            run.open_data = open_data
            run.start()

        def errors(recipes, open_data):
            with ThreadPoolExecutor(2) as pool:
                started = [pool.submit(start, *each) for each in zip(range(2), recipes, open_data)]
                return [each.exception() for each in started]

        return errors

    def test_different_recipes(self, errors):
        for error in errors([pretraining(), pretraining(base_lr=0.1, mask_ratio=0.75)], [source] * 2):
            assert type(error) is TrainingError
            assert "recipe.base_lr: 0.03 on worker 0, 0.1 on worker 1" in str(error)
            assert "recipe.mask_ratio: 0.5 on worker 0, 0.75 on worker 1" in str(error)

    def test_what_fails_on_one_fails_on_all(self, errors):
        def missing():
            raise FileNotFoundError("no.npz")

        one, two = errors([pretraining()] * 2, [source, missing])
        assert (type(one), str(one)) == (TrainingError, "Worker 1 (b:2) cannot start: no.npz")
        assert (type(two), str(two)) == (FileNotFoundError, "no.npz")


@pytest.mark.backends
class TestOpenDevices:
    def test_one_is_the_default_without_others(self, monkeypatch):
        for name in ("TF_CONFIG", "SLURM_PROCID", "TPU_NAME"):
            monkeypatch.delenv(name, raising=False)
        for name in ("auto", "one"):
            devices = open_devices(name)
            assert (devices.strategy, devices.workers, devices.replicas, devices.is_chief) == (None, 1, 1, True)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("many",), "strategy must be one of auto, one, mirrored, multiworker, tpu. Received: strategy=many"),
            (("one", "slurm"), "cluster and task need the strategy multiworker or tpu. Received: strategy=one"),
            (("mirrored", None, 0), "cluster and task need the strategy"),
        ],
    )
    def test_clear_errors(self, arguments, message):
        if keras.backend.backend() != "tensorflow" and arguments[0] == "mirrored":
            message = f"need Keras's TensorFlow backend. Received: .* {keras.backend.backend()}"
        with pytest.raises(RecipeError, match=message):
            open_devices(*arguments)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strategies are TensorFlow's")
class TestTpu:
    """As far as it goes without one."""

    @pytest.fixture
    def asked(self, monkeypatch):
        """Which TPUs were connected to and initialized."""
        import tensorflow as tf

        asked = []
        monkeypatch.delenv("TPU_NAME", raising=False)
        monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", asked.append)
        monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", asked.append)
        monkeypatch.setattr(tf.distribute, "TPUStrategy", lambda resolver: tf.distribute.get_strategy())
        return asked

    @pytest.mark.parametrize(
        ("name", "master"), [("local", ""), (None, ""), ("grpc://1.2.3.4:8470", "grpc://1.2.3.4:8470")]
    )
    def test_up_to_the_resolver(self, asked, name, master):
        devices = open_devices("tpu", name)
        assert [resolver.master() for resolver in asked] == [master] * 2
        assert (devices.workers, devices.replicas, devices.is_chief) == (1, 1, True)

    def test_where_there_is_none(self, asked, monkeypatch):
        import tensorflow as tf

        def fail(resolver):
            raise tf.errors.InvalidArgumentError(None, None, "No TPU here.\nAnd more")

        monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", fail)
        with pytest.raises(ClusterError, match=r"There must be a TPU. Received: local \(No TPU here.\)"):
            open_devices("tpu")


class Strategy:
    """The strategy of a worker that is a thread, of two, with several replicas each.

    Args:
        number: Number of the worker.
        replicas: Those of each worker.
        said: List with a place for each worker.
        barrier: Where the workers meet.
    """

    def __init__(self, number, replicas, said, barrier):
        self.number, self.replicas, self.said, self.barrier = number, replicas, said, barrier
        self.num_replicas_in_sync = 2 * replicas

    def experimental_distribute_values_from_function(self, function):
        numbers = range(self.number * self.replicas, (self.number + 1) * self.replicas)
        return [function(SimpleNamespace(replica_id_in_sync_group=number)) for number in numbers]

    def reduce(self, operation, values, axis):
        assert (operation, axis) == ("SUM", None)
        self.said[self.number] = sum(values)
        self.barrier.wait()
        total = self.said[0] + self.said[1]
        self.barrier.wait()
        return total

    def distribute_datasets_from_function(self, function):
        import tensorflow as tf

        return function(tf.distribute.InputContext(2, self.number, self.num_replicas_in_sync))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strategies are TensorFlow's")
@pytest.mark.parametrize("replicas", [1, 2, 3])
class TestReplicasOfWorkers:
    """Of two workers that are threads of this process, with as many replicas each."""

    @pytest.fixture
    def on_both(self, replicas):
        """A function from what a worker does with its `Devices` to what comes of it on both."""
        said, barrier = [None, None], threading.Barrier(2, timeout=30)

        def devices(number):
            return Devices(Strategy(number, replicas, said, barrier), number, ("a:1", "b:2"))

        def on_both(function):
            with ThreadPoolExecutor(2) as pool:
                return [*pool.map(function, map(devices, range(2)))]

        return on_both

    def test_a_worker_counts_once(self, on_both):
        for received in on_both(lambda devices: devices.sum([1, 10 * devices.worker, 0.5])):
            np.testing.assert_array_equal(received, [2, 10, 1])
        words = [{"said": "a"}, {"said": "something longer, é"}]
        assert on_both(lambda devices: devices.gather(words[devices.worker])) == [words, words]

    def test_variables_become_those_of_the_chief(self, on_both):
        values = [np.float32([0.1, -3e30]), np.uint32([2**32 - 1, 7]), np.int32([[-5]]), np.float16(0.1)]
        variables = [[keras.Variable(value + other, dtype=value.dtype) for value in values] for other in (0, 1)]
        on_both(lambda devices: devices.copy_from_chief(variables[devices.worker]))
        for of_worker in variables:
            for variable, value in zip(of_worker, values, strict=True):
                np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)

    def test_each_replica_gets_its_part_of_a_batch(self, on_both, replicas):
        import tensorflow as tf

        size = 2 * replicas * 2
        whole = np.arange(3 * size).reshape(3, size)

        def parts(devices):
            batches = devices.batches(lambda share: tf.data.Dataset.from_tensor_slices(whole[:, share.of(size)]))
            return [*batches.take(4 * replicas).as_numpy_iterator()]

        one, two = (np.reshape(each, (4, size // 2)) for each in on_both(parts))
        np.testing.assert_array_equal(np.concatenate([one, two], axis=1), [*whole, whole[0]])  # they begin again


def test_workers_with_other_numbers_of_gpus():
    names = [f"/job:worker/replica:0/task:{task}/device:GPU:{gpu}" for task, gpu in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    check_gpus([], 2)
    check_gpus(names, 2)
    for chosen, workers, counts in [(names[:3], 2, r"\[1, 2\]"), (names, 3, r"\[0, 2, 2\]")]:
        with pytest.raises(ClusterError, match=f"same number of GPUs. Received: {counts}"):
            check_gpus(chosen, workers)


class TestDevices:
    def test_batch_that_does_not_divide(self):
        devices = Devices()
        devices.replicas = 3
        devices.check_batch_size(6)
        with pytest.raises(RecipeError, match="multiple of the 3 replicas. Received: batch_size=8"):
            devices.check_batch_size(8)
        with pytest.raises(RecipeError, match="the 3 replicas x accumulation=2. Received: batch_size=9"):
            devices.check_batch_size(9, accumulation=2)

    def test_alone(self):
        with ONE_DEVICE.agreement() as facts:
            facts["a"] = 1
        assert ONE_DEVICE.gather({"a": (1, None)}) == [{"a": [1, None]}]
        np.testing.assert_array_equal(ONE_DEVICE.sum([1, 2]), [1, 2])
        with pytest.raises(OSError, match="as it is"), ONE_DEVICE.agreement():
            raise OSError("as it is")

    def test_facts_of_one_worker_alone_are_a_difference(self):
        """As of data with more statistics, or of another version with another field."""

        class Second(Devices):
            def gather(self, content):
                return [{"failure": None, "facts": {"images": 3, "versions": {"jax": "1"}}}, content]

        second = Second(worker=1, addresses=("a:1", "b:2"))
        match = "mean: None on worker 0, 0.5 on worker 1; versions.jax: 1 on worker 0, None on worker 1$"
        with pytest.raises(TrainingError, match=match), second.agreement() as facts:
            facts.update(images=3, mean=0.5, versions={})

    @pytest.mark.parametrize(
        ("message", "chiefs", "gone"),
        [
            ("Error reported from /job:worker/task:1: The following tasks are unhealthy (stopped sending heartbeats):\n"
             "/job:worker/replica:0/task:1\n/job:worker/replica:0/task:2\nThe tasks have crashed.", 0, [1, 2]),
            ("The following tasks are unhealthy:\n/job:worker/replica:0/task:1\n", 1, [2]),
            ("The following tasks are unhealthy:\n/job:chief/replica:0/task:0\n", 1, [0]),
            ("from remote target /job:worker/replica:0/task:0 while calling RecvBuf: Socket closed", 0, [1, 2]),
        ],
    )  # fmt: skip
    def test_who_died(self, message, chiefs, gone):
        with socket.create_server(("127.0.0.1", 0)) as alive:
            addresses = [f"127.0.0.1:{alive.getsockname()[1]}", "127.0.0.1:1", "127.0.0.1:2"]
            assert Devices(addresses=addresses, chiefs=chiefs)._gone(message) == gone

    def test_who_died_where_all_answer(self):
        message = "from remote target /job:worker/replica:0/task:0 while calling RecvBuf: Socket closed"
        with socket.create_server(("127.0.0.1", 0)) as alive:
            addresses = [f"127.0.0.1:{alive.getsockname()[1]}"] * 3
            assert Devices(worker=2, addresses=addresses, chiefs=0)._gone(message) == [0]
            assert Devices(worker=2, addresses=addresses, chiefs=1)._gone(message) == [1]

    @pytest.mark.parametrize("worker", [0, 1])
    def test_all_wait_for_the_chief(self, monkeypatch, worker):
        done = []
        monkeypatch.setattr(Devices, "gather", lambda self, content: done.append("gathered"))
        devices = Devices(worker=worker, addresses=("a:1", "b:1"))
        result = devices.on_chief(lambda: done.append("written") or "metrics")
        assert (result, done) == (("metrics", ["written", "gathered"]) if worker == 0 else (None, ["gathered"]))

    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the errors are TensorFlow's")
    def test_only_a_death_is_one(self, monkeypatch):
        import tensorflow as tf

        monkeypatch.setattr("training.distribute.devices.GRACE", 0)
        with socket.create_server(("127.0.0.1", 0)) as alive:
            address = f"127.0.0.1:{alive.getsockname()[1]}"
            for kind in (tf.errors.InvalidArgumentError, tf.errors.InternalError, tf.errors.UnavailableError):
                devices = Devices(addresses=(address, address))
                with pytest.raises(kind, match="Out of paper"), devices.clear_errors():
                    raise kind(None, None, "Out of paper")
            devices = Devices(addresses=(address, "127.0.0.1:1"))
            with pytest.raises(TrainingError, match=r"Worker 1 \(127.0.0.1:1\) has died"), devices.clear_errors():
                raise tf.errors.UnavailableError(None, None, "Socket closed")
