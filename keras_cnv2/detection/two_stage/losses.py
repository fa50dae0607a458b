"""The losses of Mask R-CNN, as sums over samples."""

from keras import ops


def binary_cross_entropy(logits, targets):
    """Returns the cross-entropy of each logit, computed without overflow; targets are in [0, 1]."""
    return ops.softplus(logits) - targets * logits


def cross_entropy(logits, classes):
    """Returns the cross-entropy `(...)` of logits `(..., K)` with int classes `(...)`."""
    targets = ops.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    return ops.logsumexp(logits, axis=-1) - ops.sum(targets * logits, axis=-1)


def delta_loss(deltas, targets, beta=0.0):
    """Returns the loss `(...)` of deltas `(..., 4)`, summed over the four.

    Args:
        deltas, targets: Float tensors.
        beta: Float. Errors below it count quadratically (smooth L1); 0: L1.

    Source: Fast R-CNN (arXiv 1504.08083), equation 3.
    """
    error = ops.abs(deltas - targets)
    if beta:
        error = ops.where(error < beta, 0.5 * ops.square(error) / beta, error - 0.5 * beta)
    return ops.sum(error, axis=-1)
