"""FCMAE with a dense masked encoder in plain TensorFlow, written directly from the paper. A baseline: do not optimise.

It takes the weights, the images and the masks of a `keras_cnv2.FCMAE` and must return the same loss.
"""

import tensorflow as tf


def layer_norm(w, name, x):
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-6) * w[f"{name}/gamma"] + w[f"{name}/beta"]


def dense(w, name, x):
    return tf.tensordot(x, w[f"{name}/kernel"], 1) + w[f"{name}/bias"]


def conv(w, name, x, stride):
    return tf.nn.conv2d(x, w[f"{name}/kernel"], stride, "VALID") + w[f"{name}/bias"]


def grn(w, name, x):
    norm = tf.sqrt(tf.reduce_sum(x**2, (1, 2), keepdims=True) + 1e-24)
    response = norm / (tf.reduce_mean(norm, -1, keepdims=True) + 1e-6)
    return w[f"{name}/gamma"] * (x * response) + w[f"{name}/beta"] + x


def block(w, name, x, visible=1.0):
    """Computes one residual block; `visible` is a mask `(N, H, W, 1)`."""
    y = tf.nn.depthwise_conv2d(x * visible, w[f"{name}/dwconv/kernel"], (1, 1, 1, 1), "SAME")
    y = (y + w[f"{name}/dwconv/bias"]) * visible
    y = tf.nn.gelu(dense(w, f"{name}/pwconv1", layer_norm(w, f"{name}/norm", y)), approximate=False) * visible
    return (x + dense(w, f"{name}/pwconv2", grn(w, f"{name}/grn", y))) * visible


def normalised_patches(images, patch):
    x = tf.image.extract_patches(images, (1, patch, patch, 1), (1, patch, patch, 1), (1, 1, 1, 1), "VALID")
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    size = x.shape[-1]
    return (x - mean) / tf.sqrt(variance * size / (size - 1) + 1e-6)


def loss(w, depths, images, hidden):
    """Computes FCMAE's loss.

    Args:
        w: Weights by name.
        depths: The encoder's blocks in each stage.
        images: Tensor `(N, H, W, 3)`, values in 0..255.
        hidden: Tensor `(N, H / 32, W / 32)`, 1 = masked.
    """
    images = (images / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    hidden = hidden[..., None]
    x = layer_norm(w, "stem_norm", conv(w, "stem_conv", images, 4))
    for stage, depth in enumerate(depths):
        if stage:
            x = conv(w, f"downsample_{stage}_conv", layer_norm(w, f"downsample_{stage}_norm", x), 2)
        visible = 1 - tf.repeat(tf.repeat(hidden, 8 >> stage, 1), 8 >> stage, 2)
        for number in range(depth):
            x = block(w, f"stages_{stage}_{number}", x, visible)
    x = dense(w, "proj", x) * (1 - hidden) + w["mask_token/token"] * hidden
    prediction = dense(w, "pred", block(w, "decoder_0", x))
    error = tf.reduce_mean((prediction - normalised_patches(images, 32)) ** 2, -1, keepdims=True)
    return tf.reduce_sum(error * hidden) / tf.reduce_sum(hidden)


def train_step(fcmae):
    """Returns a function of images and masks that trains the weights of a compiled `FCMAE` and returns the loss."""
    variables = fcmae.trainable_variables

    @tf.function
    def step(images, hidden):
        with tf.GradientTape() as tape:
            weights = {variable.path.removeprefix("fcmae/"): variable.value for variable in variables}
            value = loss(weights, fcmae.backbone.depths, images, hidden)
        fcmae.optimizer.apply_gradients(zip(tape.gradient(value, [v.value for v in variables]), variables))
        return value

    return step
