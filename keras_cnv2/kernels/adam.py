"""TensorFlow's kernel for a step of Adam: it goes over a weight once, where separate operations go a dozen times."""

import keras


def fits(gradient, variable):
    """Whether the kernel can take this step."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(gradient, tf.Tensor) and gradient.dtype == variable.dtype == "float32"


def step(gradient, variable, momentum, velocity, beta_1, beta_2, rate, epsilon):
    """`m += (1 - beta_1) * (g - m)`, `v += (1 - beta_2) * (g ** 2 - v)`, `w -= rate * m / (sqrt(v) + epsilon)`.

    Args:
        gradient: Tensor.
        variable, momentum, velocity: Variables of Keras or, as under tf.distribute, a replica's of TensorFlow.
        beta_1, beta_2: Floats, which the kernel rounds to float32.
        rate, epsilon: Float32 scalars, with all corrections for the bias of `m` and `v`.
    """
    import tensorflow as tf

    w, m, v = (x.value if isinstance(x, keras.Variable) else x for x in (variable, momentum, velocity))
    tf.raw_ops.ResourceApplyAdam(
        var=w.handle,
        m=m.handle,
        v=v.handle,
        beta1_power=0.0,  # its own corrections: none
        beta2_power=0.0,
        lr=rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=gradient,
    )
