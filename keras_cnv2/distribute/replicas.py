"""Replicas under tf.distribute: number, sums and random numbers. Without tf.distribute there is one replica."""

import keras
from keras import ops


def replica():
    """Returns the index of this replica (an int or an int tensor) and the number of replicas (an int)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            return context.replica_id_in_sync_group, context.num_replicas_in_sync
    return 0, 1


def all_sum(value):
    """Returns the sum of a tensor, of any shape, over all replicas."""
    _, count = replica()
    if count == 1:
        return value
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce("SUM", value)


def uniform(shape, seed):
    """Draws random numbers for the samples of a batch, different ones on each replica.

    The generators of all replicas have the same state. So each replica draws the numbers for all replicas and takes its
    part. The samples of a batch get the same numbers for any number of replicas.

    Args:
        shape: Tuple of ints that begins with the number of samples on this replica, an int or an int tensor.
        seed: `keras.random.SeedGenerator`, or any other seed that `keras.random.uniform` takes.

    Returns:
        A float32 tensor of this shape, with values in `[0, 1)`.
    """
    number, replicas = replica()
    if replicas == 1:
        return keras.random.uniform(shape, seed=seed)
    samples, *rest = shape
    drawn = keras.random.uniform((replicas * samples, *rest), seed=seed)
    return ops.take(ops.reshape(drawn, (replicas, samples, *rest)), number, axis=0)
