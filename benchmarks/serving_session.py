"""Runs a SavedModel in TensorFlow's C++ runtime, without batching or with the batching of TensorFlow Serving."""

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf


class SavedModelSession:
    """Runs the signatures of a SavedModel.

    Inputs are passed to the runtime unchanged. Like TensorFlow Serving, and unlike `tf.compat.v1.Session.run`, this
    does not compare them with the shapes in the signature.

    Args:
        folder: Path of the SavedModel.
    """

    def __init__(self, folder):
        with tf.Graph().as_default():
            self._session = tf.compat.v1.Session()
            meta = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(folder))
            self.signatures = {name: each for name, each in meta.signature_def.items() if each.inputs}
            self._calls = {name: self._callable(each) for name, each in self.signatures.items()}

    def _callable(self, signature):
        from tensorflow.core.protobuf import config_pb2

        options = config_pb2.CallableOptions()
        options.feed.extend(signature.inputs[alias].name for alias in sorted(signature.inputs))
        options.fetch.extend(signature.outputs[alias].name for alias in sorted(signature.outputs))
        return self._session._make_callable_from_options(options)

    def run(self, name, inputs):
        """Runs a signature, from inputs {alias: array} to outputs {alias: array}.

        Raises:
            tf.errors.OpError: If the names, dtypes or values do not match the signature.
        """
        signature = self._signature(name)
        if set(inputs) != set(signature.inputs):
            raise _invalid(f"The inputs are {sorted(signature.inputs)}, received {sorted(inputs)}")
        for alias, values in inputs.items():
            dtype = tf.dtypes.as_dtype(signature.inputs[alias].dtype)
            if tf.dtypes.as_dtype(values.dtype) != dtype:
                raise _invalid(f"{alias} must be {dtype.name}, received {values.dtype}")
        outputs = self._calls[name](*(inputs[alias] for alias in sorted(inputs)))
        return dict(zip(sorted(signature.outputs), outputs))

    def _signature(self, name):
        if name not in self.signatures:
            raise tf.errors.FailedPreconditionError(None, None, f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def close(self):
        self._session.close()


def _invalid(message):
    return tf.errors.InvalidArgumentError(None, None, message)


@dataclass
class Task:
    """A request that waits to be batched with others."""

    inputs: dict
    rows: int
    answer: Future = field(default_factory=Future)


CLOSED = Task({}, 0)


class BatchingSession:
    """Combines concurrent calls of a signature into batches, by the rules of TensorFlow Serving's batching.

    Requests are not split; a request larger than a batch is refused. If the shapes in a batch differ in more than the
    number of rows, or the model raises an error, all requests of the batch fail. Batches are padded to an allowed size
    with copies of the first row of the last request.

    Args:
        session: `SavedModelSession`.
        max_batch_size: Int, the maximum number of rows in a batch.
        allowed: Allowed batch sizes, ascending ints, the last of which is the largest batch; empty: all sizes.
        timeout: Float, seconds that a request waits for others.
        waiting: Int, the maximum number of requests in a queue.
        threads: Int, the number of parallel batches of each signature.
    """

    def __init__(self, session, max_batch_size, allowed=(), timeout=0.002, waiting=512, threads=2):
        self.signatures = session.signatures
        self._session, self._largest, self.allowed, self._timeout = session, max_batch_size, allowed, timeout
        self._queues = {name: queue.Queue(waiting) for name in self.signatures}
        self._threads = [
            threading.Thread(target=self._work, args=(name,), daemon=True)
            for name in self.signatures
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()
        self.batches = []  # the number of rows of each batch that was run

    def run(self, name, inputs):
        """As `SavedModelSession.run`."""
        if name not in self._queues:
            return self._session.run(name, inputs)  # raises the error about an unknown signature
        sizes = {len(values) if values.ndim else None for values in inputs.values()}
        if len(sizes) != 1 or None in sizes:
            raise _invalid("Batching Run() input tensors must have equal 0th-dimension size")
        task = Task(inputs, sizes.pop())
        if task.rows > self._largest:
            raise _invalid(f"Task size {task.rows} is larger than maximum input batch size {self._largest}")
        try:
            self._queues[name].put_nowait(task)
        except queue.Full as error:
            raise tf.errors.UnavailableError(None, None, "The batch scheduling queue is full") from error
        return task.answer.result()

    def _work(self, name):
        task = self._queues[name].get()
        while task is not CLOSED:
            tasks, task = self._gather(name, task)
            try:
                outputs = self._run(name, tasks)
            except Exception as error:
                for each in tasks:
                    each.answer.set_exception(error)
            else:
                for each, answer in zip(tasks, outputs):
                    each.answer.set_result(answer)
            task = task or self._queues[name].get()

    def _gather(self, name, task):
        """Collects the tasks of a batch, given its first one. Returns them and the task that no longer fits, if any."""
        tasks, rows, until = [task], task.rows, time.monotonic() + self._timeout
        while rows < self._largest:
            try:
                task = self._queues[name].get(timeout=max(0, until - time.monotonic()))
            except queue.Empty:
                break
            if task is CLOSED or rows + task.rows > self._largest:
                return tasks, task
            tasks.append(task)
            rows += task.rows
        return tasks, None

    def _run(self, name, tasks):
        """Runs a batch. Returns a list with the outputs of each task."""
        rows = sum(task.rows for task in tasks)
        padding = next((size for size in self.allowed if size >= rows), rows) - rows
        outputs = self._session.run(name, {alias: _merged(alias, tasks, padding) for alias in tasks[0].inputs})
        self.batches.append(rows + padding)
        ends = np.cumsum([task.rows for task in tasks])
        return [
            {alias: values[end - task.rows : end] for alias, values in outputs.items()}
            for task, end in zip(tasks, ends)
        ]

    def close(self):
        """Ends the threads; the session stays open."""
        for name in self._queues:
            for _ in self._threads:
                self._queues[name].put(CLOSED)
        for thread in self._threads:
            thread.join()


def _merged(alias, tasks, padding):
    parts = [task.inputs[alias] for task in tasks]
    if len({(part.shape[1:], part.dtype.kind) for part in parts}) != 1:
        raise tf.errors.FailedPreconditionError(
            None, None, f"Tensors with name '{alias}' from different tasks have different shapes"
        )
    return np.concatenate([*parts, *[parts[-1][:1]] * padding])
