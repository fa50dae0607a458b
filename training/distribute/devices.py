"""The devices of a run: gives each its data, makes workers agree, and names workers that died.

TensorFlow is imported only if there is a strategy.
"""

import contextlib
import itertools
import json
import logging
import re
import socket
import time

import keras
import numpy as np

from ..data.shares import WHOLE, Share
from ..errors import RecipeError, TrainingError

logger = logging.getLogger(__name__)

# Seconds that a worker stays alive after another one died, so that all workers can find out which one it was:
# TensorFlow's heartbeats report a dead worker after 10 seconds.
GRACE = 12

# TensorFlow's name of a worker.
TASK = r"/job:(\w+)/replica:0/task:(\d+)"


class Devices:
    """Represents the devices of a run.

    Args:
        strategy: A `tf.distribute.Strategy`, or `None` for the one device that Keras chooses.
        worker: Index of this worker.
        addresses: "host:port" of all workers.
        chiefs: How many of these belong to TensorFlow's separate job "chief", 0 or 1; they come first.

    Attributes:
        worker, workers: Index of this worker, and number of workers.
        is_chief: Whether this is worker 0, which writes the run's files.
        replicas: Number of replicas on all workers.
    """

    def __init__(self, strategy=None, worker=0, addresses=("localhost",), chiefs=0):
        self.strategy = strategy
        self.worker = worker
        self.addresses = list(addresses)
        self.chiefs = chiefs
        self.workers = len(addresses)
        self.is_chief = worker == 0
        self.replicas = strategy.num_replicas_in_sync if strategy else 1

    def scope(self):
        """A context in which models, optimizers and metrics must be created."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def check_batch_size(self, batch_size, accumulation=1):
        """Raises a `RecipeError` if a batch cannot be divided equally between all replicas."""
        if batch_size % (accumulation * self.replicas):
            each = f" x accumulation={accumulation}" if accumulation > 1 else ""
            raise RecipeError(
                f"batch_size is that of all devices together and must be a multiple of the {self.replicas} replicas"
                f"{each}. Received: batch_size={batch_size}"
            )

    def part_of(self, batch_size):
        """Returns how many images of a batch one device gets: the batch size to use where one device computes alone."""
        return batch_size // self.replicas

    def batches(self, load):
        """Returns batches for Keras, of which each replica gets its part. Under a strategy they repeat endlessly.

        With an endless dataset, the replicas do not need to ask each other at each step whether there is another batch,
        and Keras does not take one batch too many before each evaluation. Keras must be given the number of steps.

        Args:
            load: Function from a `training.data.shares.Share` to that part of the batches, a `tf.data.Dataset` or
                `keras.utils.PyDataset`. It is called for each machine that loads data.
        """
        if self.strategy is None:
            # With a `PyDataset`, Keras hides the static batch size from TensorFlow, but the fast kernels depend on it.
            return _as_dataset(load(WHOLE)) if keras.backend.backend() == "tensorflow" else load(WHOLE)
        import tensorflow as tf

        def of_worker(context):
            batches = _as_dataset(load(Share(context.input_pipeline_id, context.num_input_pipelines)))
            batches = _split(batches, context.num_replicas_in_sync // context.num_input_pipelines).repeat()
            return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

        return self.strategy.distribute_datasets_from_function(of_worker)

    @contextlib.contextmanager
    def agreement(self):
        """A context for code that runs on all workers: it succeeds on all with the same facts, or fails on all.

        Yields:
            A dict for the facts, which must be JSON serializable.

        Raises:
            TrainingError: If another worker failed or has other facts. The message names worker and facts.
        """
        facts, failure = {}, None
        try:
            yield facts
        except Exception as error:
            if self.workers == 1:
                raise
            failure = error
        told = self.gather({"failure": str(failure) if failure else None, "facts": facts})
        if failure:
            raise failure
        for number, other in enumerate(told):
            if other["failure"]:
                raise TrainingError(f"{self._name(number)} cannot start: {other['failure']}")
        differences = [
            f"{name}: {chief} on worker 0, {mine} on worker {number}"
            for number, other in enumerate(told)
            for name, chief, mine in _differences(told[0]["facts"], other["facts"])
        ]
        if differences:
            raise TrainingError(
                "All workers must run the same command on the same data with the same packages. Received: "
                + "; ".join(differences)
            )

    def gather(self, content):
        """Collects JSON serializable content from all workers. Returns a list with one item for each worker."""
        if self.workers == 1:
            return [json.loads(json.dumps(content))]
        # Computed as the sum of tables in which each worker fills only its own row.
        text = np.frombuffer(json.dumps(content).encode(), "uint8")
        lengths = np.zeros(self.workers, "int32")
        lengths[self.worker] = len(text)
        lengths = self._summed(lengths)
        table = np.zeros((self.workers, lengths.max()), "int32")
        table[self.worker, : len(text)] = text
        lines = self._summed(table).astype("uint8")
        return [json.loads(line[:length].tobytes()) for line, length in zip(lines, lengths)]

    def sum(self, numbers):
        """Sums a list of numbers over all workers. Returns a float32 array."""
        numbers = np.asarray(numbers, "float32")
        return numbers if self.workers == 1 else self._summed(numbers)

    def on_chief(self, function):
        """Calls a function on the chief only, and returns its result; `None` on the other workers.

        The other workers wait for the chief, because schedulers stop a job when some of its workers end.
        """
        result = function() if self.is_chief else None
        self.gather("done")
        return result

    def copy_from_chief(self, variables):
        """Sets variables on all workers to their values on the chief."""
        if self.workers == 1:
            return
        for variable in variables:
            value = keras.ops.convert_to_numpy(variable)
            # Sums between machines support these types, which hold all values without loss.
            value = value.astype("int64" if np.issubdtype(value.dtype, np.integer) else "float32")
            variable.assign(self._summed(value if self.is_chief else np.zeros_like(value)))

    def _summed(self, values):
        """Returns the sum of an array over all workers."""
        import tensorflow as tf

        def of_replica(context):
            is_first = int(context.replica_id_in_sync_group) % (self.replicas // self.workers) == 0
            return tf.constant(values if is_first else np.zeros_like(values))

        per_replica = self.strategy.experimental_distribute_values_from_function(of_replica)
        return self.strategy.reduce("SUM", per_replica, axis=None).numpy()

    @contextlib.contextmanager
    def clear_errors(self):
        """A context that replaces TensorFlow's errors about a lost worker by one that names the worker.

        Raises:
            TrainingError: Instead of such errors.
        """
        if self.workers == 1:
            yield
            return
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            kinds = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
            if not isinstance(error, (*kinds, tf.errors.DeadlineExceededError)):
                raise
            gone = ", ".join(map(self._name, self._gone(error.message)))
            if not gone:
                raise
            logger.error("%s is gone", gone)
            time.sleep(GRACE)
            raise TrainingError(
                f"{gone} has died or cannot be reached, which ends the others. Start all of them again with the same "
                "command: they go on from the newest checkpoint"
            ) from error

    def _gone(self, message):
        """Returns the indices of the workers that an error is about."""
        if unhealthy := self._named(rf"(?m)^{TASK}$", message):
            return sorted(unhealthy)
        refusing = [number for number, address in enumerate(self.addresses) if not _answers(address)]
        return refusing or sorted(self._named(TASK, message) - {self.worker})

    def _named(self, pattern, message):
        """Returns the indices of the workers whose TensorFlow names are in a message."""
        return {int(task) + self.chiefs * (job == "worker") for job, task in re.findall(pattern, message)}

    def _name(self, number):
        return f"Worker {number} ({self.addresses[number]})"


ONE_DEVICE = Devices()


def _answers(address):
    """Returns whether a process accepts connections at an address."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _as_dataset(batches):
    """Converts a `keras.utils.PyDataset` to a `tf.data.Dataset`; returns a `tf.data.Dataset` unchanged."""
    import tensorflow as tf

    if isinstance(batches, tf.data.Dataset):
        return batches
    specs = keras.tree.map_structure(lambda column: tf.TensorSpec(column.shape, column.dtype), batches[0])
    count = batches.num_batches

    def numbered():
        yield from map(batches.__getitem__, range(count) if count is not None else itertools.count())

    return tf.data.Dataset.from_generator(numbered, output_signature=specs).prefetch(1)


def _split(batches, replicas):
    """Splits each batch into consecutive batches, one for each replica."""
    import tensorflow as tf

    def split(*columns):
        columns = columns[0] if len(columns) == 1 else columns
        return tf.nest.map_structure(lambda x: tf.reshape(x, (replicas, x.shape[0] // replicas, *x.shape[1:])), columns)

    return batches if replicas == 1 else batches.map(split).unbatch()


def _differences(one, two, name=""):
    """Yields the differences between two nested dicts: name and both values."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted(one.keys() | two.keys()):
            yield from _differences(one.get(key), two.get(key), f"{name}.{key}" if name else key)
    elif one != two:
        yield name, one, two
