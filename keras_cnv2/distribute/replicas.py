"""Which replica of how many a computation is on, under tf.distribute. Anywhere else there is one."""

import keras
from keras import ops


def replica():
    """The number of this replica (an int or an int tensor) and that of all replicas (an int)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            return context.replica_id_in_sync_group, context.num_replicas_in_sync
    return 0, 1


def all_sum(value):
    """The sum of what all replicas have: of a tensor of any shape."""
    _, count = replica()
    if count == 1:
        return value
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce("SUM", value)


def uniform(shape, seed):
    """Random numbers for the samples of a batch, others on each replica.

    The generators of all replicas are in the same state. So each draws for all of them and takes its part, and the
    samples of a batch get the same numbers however many replicas share it.

    Args:
        shape: Tuple of ints, this replica's samples first; that one may be a tensor.
        seed: `keras.random.SeedGenerator`, or whatever `keras.random.uniform` takes.

    Returns:
        A float32 tensor in `[0, 1)`.
    """
    number, replicas = replica()
    if replicas == 1:
        return keras.random.uniform(shape, seed=seed)
    samples, *rest = shape
    drawn = keras.random.uniform((replicas * samples, *rest), seed=seed)
    return ops.take(ops.reshape(drawn, (replicas, samples, *rest)), number, axis=0)
