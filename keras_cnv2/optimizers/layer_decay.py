"""Layer-wise learning-rate decay: finds the layer that a weight belongs to, from the paths of the weights."""

import re
from collections import defaultdict

# The number of blocks in each stage for which "group" is defined: that of base, large and huge.
GROUP_DEPTHS = {0: 3, 1: 3, 2: 27, 3: 3}
GROUPS = 13

LAYER_DECAY_TYPES = ("single", "group")


def layers_above(paths, layer_decay_type):
    """Counts the layers above each weight: the exponent of the layer decay.

    Args:
        paths: The paths of all trained weights. Encoders come one after the other, as in a model's
            `trainable_variables`, and each is counted separately.
        layer_decay_type: "single" or "group", as in `LayerDecayAdamW`.

    Returns:
        List of ints, one per path; 0 for weights above the stages.

    Raises:
        ValueError: If the weights of several encoders are mixed; or if the type is "group" and a stage has another
            depth than groups are defined for.
    """
    count = _count_groups if layer_decay_type == "group" else _count_blocks
    above = [0] * len(paths)
    for encoder in _encoders(paths):
        for index, number in zip(encoder, count([*encoder.values()])):
            above[index] = number
    return above


def _count_blocks(places):
    depths = _depths(places)
    above = {stage: sum(depth for other, depth in depths.items() if other >= stage) for stage in depths}
    return [above[stage] - max(block, 0) for stage, block in places]


def _count_groups(places):
    _check_group_depths(_depths(places))
    return [GROUPS - _group(*place) for place in places]


def _depths(places):
    """The number of blocks in each stage, by the last trained block."""
    depths = defaultdict(int)
    for stage, block in places:
        depths[stage] = max(depths[stage], block + 1)
    return depths


def _encoders(paths):
    """Groups the weights by encoder: a list of dicts from indices in `paths` to places (stage, block).

    A new encoder begins at a path (without its prefix) that the current encoder already has. If any path occurs twice,
    a new encoder also begins at a place below the previous one, since an encoder that is frozen at the bottom lacks the
    lower paths. If no path occurs twice, there is a single encoder, whose weights may come in any order.
    """
    encoders, names, last = [{}], set(), (0, BEFORE)
    found = [(index, *place) for index, path in enumerate(paths) if (place := _place(path))]
    has_several = len({name for _, _, name in found}) < len(found)
    for index, place, name in found:
        if has_several and (name in names or place < last):
            encoders.append({})
            names = set()
        encoders[-1][index] = last = place
        names.add(name)
    # If the weights of encoders alternate, they look like many encoders that end at different stages.
    if len({max(encoder.values())[0] for encoder in encoders if encoder}) > 1:
        raise ValueError(
            "Weights of several encoders must come one encoder after the other, each from its stem up, as in "
            "`model.trainable_variables`, and all must be trained up to the same stage. Received: encoders that end "
            f"with {[paths[max(encoder)] for encoder in encoders][:8]}"
        )
    return encoders


BEFORE = -1  # stands for the block number of the stem and of the downsampling layers
PLACE = re.compile(
    r"stem_(?:conv|norm)|downsample_(?P<before>[1-3])_(?:conv|norm)|stages_(?P<stage>[0-3])_(?P<block>\d+)"
)


def _place(path):
    """The place (stage, block) of a weight and its path without prefix; `None` if it is in neither stem nor stages."""
    segments = path.split("/")
    for number, segment in enumerate(segments):
        if match := PLACE.fullmatch(segment):
            stage, block = match["stage"] or match["before"] or 0, match["block"] or BEFORE
            return (int(stage), int(block)), "/".join(segments[number:])
    return None


def _group(stage, block):
    """The layer group of a weight, 0 to 12, as in the official code."""
    if (stage, block) == (0, BEFORE):
        return 0
    return (1, 2, 3 + max(block, 0) // 3, 12)[stage]


def _check_group_depths(depths):
    # The depth of a stage without trained blocks (a frozen one) is not known, so it is not checked.
    if any(depth and GROUP_DEPTHS.get(stage) != depth for stage, depth in depths.items()):
        found = ", ".join(f"stage {stage}: {depth}" for stage, depth in sorted(depths.items()))
        raise ValueError(
            f"layer_decay_type='group' is defined for depths {tuple(GROUP_DEPTHS.values())} (base, large, huge); "
            f"use 'single'. Received: weights with blocks up to {found}"
        )
