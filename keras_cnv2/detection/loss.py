import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_cnv2")
class FocalLoss(keras.losses.Loss):
    """Focal loss: binary cross-entropy of each class, with lower weight for predictions that are already right.

    ```
    loss = -alpha_t * (1 - p_t) ** gamma * log(p_t),    p_t = p, alpha_t = alpha          where y = 1
                                                        p_t = 1 - p, alpha_t = 1 - alpha  where y = 0
    ```

    summed over the classes. It is computed from logits. KerasCV's focal loss clips probabilities at 1e-7, so that an
    object whose predicted probability is lower has no gradient.

    Args:
        alpha: Float in [0, 1], the weight of `y = 1`; that of `y = 0` is `1 - alpha`.
        gamma: Float, at least 0, the focusing exponent.
        reduction, name: As in `keras.losses.Loss`, but with "sum" as the default reduction.

    Call arguments:
        y_true: Tensor `(..., classes)` of zeros and ones.
        y_pred: Tensor of the same shape, logits.

    Returns:
        A scalar, or `(...)` without reduction.

    Source: Focal Loss (arXiv 1708.02002), sections 3.1 and 3.2, equation 5.
    """

    def __init__(self, alpha=0.25, gamma=2.0, reduction="sum", name="focal_loss", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.alpha = alpha
        self.gamma = gamma

    from_logits = True  # KerasCV reads this attribute

    def call(self, y_true, y_pred):
        is_there = ops.cast(y_true, y_pred.dtype)
        right = (2 * is_there - 1) * y_pred  # the logit of p_t
        alpha = is_there * self.alpha + (1 - is_there) * (1 - self.alpha)
        return ops.sum(alpha * ops.power(ops.sigmoid(-right), self.gamma) * ops.softplus(-right), axis=-1)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "gamma": self.gamma}
