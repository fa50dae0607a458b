"""The devices of a run: which data each gets, what its workers agree on, and which of them died.

TensorFlow is imported where there is a strategy.
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

# Seconds that a worker stays after another died, so that all find out which of them it was: TensorFlow's heartbeats
# tell of a death after 10.
GRACE = 12

# What TensorFlow calls a worker.
TASK = r"/job:(\w+)/replica:0/task:(\d+)"


class Devices:
    """The devices of a run.

    Args:
        strategy: A `tf.distribute.Strategy`, or `None` for the one device that Keras chooses.
        worker: The number of this worker.
        addresses: "host:port" of all workers.
        chiefs: How many of these have a job of their own in TensorFlow, "chief"; they come first.

    Attributes:
        worker, workers: The number of this worker, and that of all.
        is_chief: Whether this is worker 0, which writes.
        replicas: The number of replicas on all workers.
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
        """A context in which models, optimizers and metrics are made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def check_batch_size(self, batch_size, accumulation=1):
        """Raises a `RecipeError` if not every replica gets the same part of each batch."""
        if batch_size % (accumulation * self.replicas):
            each = f" x accumulation={accumulation}" if accumulation > 1 else ""
            raise RecipeError(
                f"batch_size is that of all devices together and must be a multiple of the {self.replicas} replicas"
                f"{each}. Received: batch_size={batch_size}"
            )

    def part_of(self, batch_size):
        """How many images of a batch one device gets: as many as fit where one computes alone."""
        return batch_size // self.replicas

    def batches(self, load):
        """Batches for Keras: each replica gets its part. Under a strategy they begin again after the last.

        An endless dataset saves the replicas from asking each other at each step whether there is another batch, and
        Keras from taking one too many before it evaluates again. Keras has to be told the number of steps.

        Args:
            load: From a `training.data.shares.Share` to that part of the batches, a `tf.data.Dataset` or
                `keras.utils.PyDataset`. It is called for each machine that loads data.
        """
        if self.strategy is None:
            # Keras would hide the batch size of a `PyDataset` from TensorFlow, and the fast kernels depend on it.
            return _as_dataset(load(WHOLE)) if keras.backend.backend() == "tensorflow" else load(WHOLE)
        import tensorflow as tf

        def of_worker(context):
            batches = _as_dataset(load(Share(context.input_pipeline_id, context.num_input_pipelines)))
            batches = _split(batches, context.num_replicas_in_sync // context.num_input_pipelines).repeat()
            return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

        return self.strategy.distribute_datasets_from_function(of_worker)

    @contextlib.contextmanager
    def agreement(self):
        """Does something on all workers: if it fails on one it fails on all, and all must come to the same facts.

        Yields:
            A dict to put the facts into, which must be JSON.

        Raises:
            TrainingError: If another worker failed, or has other facts. It names worker and facts.
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
        """What each worker has to say, something that can be JSON: a list, worker by worker."""
        if self.workers == 1:
            return [json.loads(json.dumps(content))]
        # As a sum of tables in which each worker has a line of its own.
        text = np.frombuffer(json.dumps(content).encode(), "uint8")
        lengths = np.zeros(self.workers, "int32")
        lengths[self.worker] = len(text)
        lengths = self._summed(lengths)
        table = np.zeros((self.workers, lengths.max()), "int32")
        table[self.worker, : len(text)] = text
        lines = self._summed(table).astype("uint8")
        return [json.loads(line[:length].tobytes()) for line, length in zip(lines, lengths)]

    def sum(self, numbers):
        """The sum over all workers of a list of numbers: a float32 array."""
        numbers = np.asarray(numbers, "float32")
        return numbers if self.workers == 1 else self._summed(numbers)

    def on_chief(self, function):
        """What a function returns, called on the chief alone; `None` on the other workers.

        These wait for it: schedulers stop a job of which some workers have left.
        """
        result = function() if self.is_chief else None
        self.gather("done")
        return result

    def copy_from_chief(self, variables):
        """Sets variables of all workers to what they are on the chief."""
        if self.workers == 1:
            return
        for variable in variables:
            value = keras.ops.convert_to_numpy(variable)
            # The types that are summed between machines hold these without loss.
            value = value.astype("int64" if np.issubdtype(value.dtype, np.integer) else "float32")
            variable.assign(self._summed(value if self.is_chief else np.zeros_like(value)))

    def _summed(self, values):
        """The sum over all workers."""
        import tensorflow as tf

        def of_replica(context):
            is_first = int(context.replica_id_in_sync_group) % (self.replicas // self.workers) == 0
            return tf.constant(values if is_first else np.zeros_like(values))

        per_replica = self.strategy.experimental_distribute_values_from_function(of_replica)
        return self.strategy.reduce("SUM", per_replica, axis=None).numpy()

    @contextlib.contextmanager
    def clear_errors(self):
        """Turns TensorFlow's error about a worker that is gone into one that says which.

        Raises:
            TrainingError: In the place of such errors.
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
        """The numbers of the workers that an error is about."""
        if unhealthy := self._named(rf"(?m)^{TASK}$", message):
            return sorted(unhealthy)
        refusing = [number for number, address in enumerate(self.addresses) if not _answers(address)]
        return refusing or sorted(self._named(TASK, message) - {self.worker})

    def _named(self, pattern, message):
        """The numbers of the workers that a message has TensorFlow's names of."""
        return {int(task) + self.chiefs * (job == "worker") for job, task in re.findall(pattern, message)}

    def _name(self, number):
        return f"Worker {number} ({self.addresses[number]})"


ONE_DEVICE = Devices()


def _answers(address):
    """Whether somebody listens there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _as_dataset(batches):
    """The batches of a `keras.utils.PyDataset` as a `tf.data.Dataset`; such datasets are returned as they are."""
    import tensorflow as tf

    if isinstance(batches, tf.data.Dataset):
        return batches
    specs = keras.tree.map_structure(lambda column: tf.TensorSpec(column.shape, column.dtype), batches[0])
    count = batches.num_batches

    def numbered():
        yield from map(batches.__getitem__, range(count) if count is not None else itertools.count())

    return tf.data.Dataset.from_generator(numbered, output_signature=specs).prefetch(1)


def _split(batches, replicas):
    """Splits each batch into one for each replica, one after the other."""
    import tensorflow as tf

    def split(*columns):
        columns = columns[0] if len(columns) == 1 else columns
        return tf.nest.map_structure(lambda x: tf.reshape(x, (replicas, x.shape[0] // replicas, *x.shape[1:])), columns)

    return batches if replicas == 1 else batches.map(split).unbatch()


def _differences(one, two, name=""):
    """Where two nested dicts differ: name and both values of each such place."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted(one.keys() | two.keys()):
            yield from _differences(one.get(key), two.get(key), f"{name}.{key}" if name else key)
    elif one != two:
        yield name, one, two
