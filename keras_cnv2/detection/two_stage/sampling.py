"""Random selection of anchors or proposals for a loss, with at most a certain part of them matched to boxes."""

from keras import ops


def sample(is_matched, is_background, draws, number, most_matched):
    """Selects matched and background candidates at random; background fills the places that matched ones leave.

    Args:
        is_matched, is_background: Bool tensors `(N, A)`. Candidates that are neither are never selected.
        draws: Float tensor `(N, A)` in [0, 1): among candidates of the same kind, those with the largest numbers are
            selected. Candidates with negative numbers are never selected.
        number: Int S, how many are selected at most; at most A, if A is not static.
        most_matched: Int, how many of them are matched at most.

    Returns:
        Int32 indices `(N, S)`, the matched ones first, and a bool tensor `(N, S)`: false where there are not as many.
    """
    if draws.shape[1] is not None:
        number, most_matched = min(number, draws.shape[1]), min(most_matched, draws.shape[1])
    values, _ = ops.top_k(ops.where(is_matched, draws, -1.0), most_matched)
    lowest = ops.maximum(values[:, -1:], 0.0)
    # The selected matched ones are above all background ones, which are above all others.
    order = ops.where(is_matched & (draws >= lowest), 1.0 + draws, ops.where(is_background, draws, -1.0))
    values, indices = ops.top_k(order, number)
    return ops.cast(indices, "int32"), values >= 0
