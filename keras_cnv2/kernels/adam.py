"""TensorFlow's fused kernel for a step of Adam: it reads a weight once, separate operations read it a dozen times."""

import keras


def fits(gradient, variable):
    """Whether the kernel supports this step: TensorFlow, and a dense gradient and a weight in float32."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(gradient, tf.Tensor) and gradient.dtype == variable.dtype == "float32"


def step(gradient, variable, momentum, velocity, beta_1, beta_2, rate, epsilon):
    """Updates a weight `w` with gradient `g`, momentum `m` and velocity `v` in place.

    `m += (1 - beta_1) * (g - m)`, `v += (1 - beta_2) * (g ** 2 - v)`, `w -= rate * m / (sqrt(v) + epsilon)`.

    Args:
        gradient: Tensor.
        variable, momentum, velocity: Keras variables, or a replica's TensorFlow variables under tf.distribute.
        beta_1, beta_2: Floats, which the kernel rounds to float32.
        rate, epsilon: Float32 scalars that already include the bias corrections of `m` and `v`.
    """
    import tensorflow as tf

    w, m, v = (x.value if isinstance(x, keras.Variable) else x for x in (variable, momentum, velocity))
    tf.raw_ops.ResourceApplyAdam(
        var=w.handle,
        m=m.handle,
        v=v.handle,
        beta1_power=0.0,  # turns off the kernel's own bias corrections
        beta2_power=0.0,
        lr=rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=gradient,
    )
