"""Opens the devices of a run: one device, several, or several machines. TensorFlow is imported only for a strategy.

A worker is a process with its devices; a replica is a device with its part of each batch. All workers run the same
program, in step with each other; the first one, the chief, also writes the run's folder.
"""

import os
import signal

import keras

from ..errors import RecipeError, TrainingError
from . import clusters, rendezvous
from .devices import Devices

STRATEGIES = ("auto", "one", "mirrored", "multiworker", "tpu")


def open_devices(strategy="auto", cluster=None, task=None):
    """Opens the devices of a run. Call this before TensorFlow computes anything: later it cannot add other workers.

    Args:
        strategy: "one" device; "mirrored", all GPUs of this machine; "multiworker", all GPUs of several machines;
            "tpu"; or "auto", which chooses what is available.
        cluster: Optional description of the workers, see `training.distribute.clusters.resolve`; for "tpu", the TPU's
            name.
        task: Optional int, the index of this worker in a list of workers.

    Returns:
        `Devices`.

    Raises:
        ClusterError: If there is no such cluster or TPU.
        RecipeError: If the strategy is unknown, or not available with Keras's backend.
    """
    if strategy not in STRATEGIES:
        raise RecipeError(f"strategy must be one of {', '.join(STRATEGIES)}. Received: strategy={strategy}")
    if strategy not in ("auto", "one") and keras.backend.backend() != "tensorflow":
        raise RecipeError(
            f"strategy must be one: several devices need Keras's TensorFlow backend. Received: strategy={strategy} "
            f"with the backend {keras.backend.backend()}"
        )
    if strategy == "auto":
        strategy = _strategy_here(cluster)
    if (cluster or task is not None) and strategy in ("one", "mirrored"):
        raise RecipeError(f"cluster and task need the strategy multiworker or tpu. Received: strategy={strategy}")
    return {"one": _one, "mirrored": _mirrored, "multiworker": _multiworker, "tpu": _tpu}[strategy](cluster, task)


def _strategy_here(cluster):
    if keras.backend.backend() != "tensorflow":
        return "one"
    import tensorflow as tf

    if cluster or clusters.kind_here():
        return "multiworker"
    if tf.config.list_physical_devices("TPU") or os.environ.get("TPU_NAME"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one"


def _one(cluster, task):
    return Devices()


def _mirrored(cluster, task):
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return Devices(tf.distribute.MirroredStrategy([device.name for device in devices]))


def _multiworker(cluster, task):
    import tensorflow as tf

    from keras_cnv2 import distribute

    distribute.enable_multi_worker()
    resolver = clusters.resolve(cluster, task)
    addresses = clusters.addresses(resolver)
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    worker = resolver.task_id + chiefs * (resolver.task_type == "worker")
    if len(addresses) > 1:
        rendezvous.meet(addresses, worker)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (RuntimeError, tf.errors.OpError) as error:
        raise TrainingError(f"The workers did not come together: {error}") from error
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow has installed its own handler
    check_gpus([device.name for device in tf.config.list_logical_devices("GPU")], len(addresses))
    return Devices(strategy, worker, addresses, chiefs)


def check_gpus(names, workers):
    """Raises a `ClusterError` if workers have different numbers of GPUs: they would wait for each other forever."""
    tasks = [name.partition("/device")[0] for name in names]
    counts = [tasks.count(task) for task in sorted({*tasks})]
    if names and (len(counts) < workers or len({*counts}) > 1):
        counts += [0] * (workers - len(counts))
        raise clusters.ClusterError(f"Workers must have the same number of GPUs. Received: {sorted(counts)} GPUs")


def _tpu(cluster, task):
    import tensorflow as tf

    resolver = clusters.tpu(cluster)
    try:
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return Devices(tf.distribute.TPUStrategy(resolver))
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise clusters.ClusterError(f"There must be a TPU. Received: {cluster or 'local'} ({reason})") from error
