"""Where a run computes: on one device, on several, on several machines. TensorFlow is imported where a strategy is.

A worker is a process with its devices, a replica a device with its part of each batch. All workers run the same
program, worker by worker and step by step; the first one, the chief, also writes the run's folder.
"""

import logging
import os

import keras

from training import clusters
from training.callbacks import TrainingError
from training.devices import Devices
from training.recipes import RecipeError

logger = logging.getLogger(__name__)

STRATEGIES = ("auto", "one", "mirrored", "multiworker", "tpu")


def open_devices(strategy="auto", cluster=None, task=None):
    """The devices of a run. Called before TensorFlow computes anything: afterwards it takes no other workers.

    Args:
        strategy: "one" device; "mirrored", all GPUs of this machine; "multiworker", all GPUs of several machines;
            "tpu"; or "auto", which of these there is.
        cluster: Optional, who the workers are, see `training.clusters.resolve`; for "tpu" its name.
        task: Optional int, which of the listed workers this is.

    Returns:
        `Devices`.

    Raises:
        ClusterError: If there is no such cluster.
        RecipeError: If the strategy is unknown, or not for Keras's backend.
    """
    if strategy not in STRATEGIES:
        raise RecipeError(f"strategy must be one of {', '.join(STRATEGIES)}. Received: strategy={strategy}")
    if keras.backend.backend() != "tensorflow":
        if strategy in ("auto", "one"):
            return Devices()
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
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ())) if resolver.task_type == "worker" else 0
    worker = chiefs + resolver.task_id
    if len(addresses) > 1:
        logger.warning("Worker %d waits for all of %s", worker, ", ".join(addresses))
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (RuntimeError, tf.errors.OpError) as error:
        raise TrainingError(f"The workers did not come together: {error}") from error
    devices = [device.name.rpartition("/")[0] for device in tf.config.list_logical_devices("GPU")]
    counts = [devices.count(name) for name in sorted({*devices})]
    if devices and (len(counts) < len(addresses) or len({*counts}) > 1):
        raise clusters.ClusterError(f"Workers must have the same number of GPUs. Received: {counts} GPUs")
    return Devices(strategy, worker, addresses)


def _tpu(cluster, task):
    import tensorflow as tf

    resolver = clusters.tpu(cluster)
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return Devices(tf.distribute.TPUStrategy(resolver))
