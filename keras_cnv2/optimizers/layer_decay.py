"""Which layer a weight belongs to, for layer-wise learning-rate decay: read from the paths of the weights."""

import re
from collections import defaultdict

# What the layer groups of 'group' were made for: the blocks of each stage of base, large and huge.
GROUP_DEPTHS = {0: 3, 1: 3, 2: 27, 3: 3}
GROUPS = 13

LAYER_DECAY_TYPES = ("single", "group")


def layers_above(paths, layer_decay_type):
    """How many layers' worth of learning-rate decay each weight has.

    Args:
        paths: The paths of all weights that are trained.
        layer_decay_type: "single" or "group", as in `LayerDecayAdamW`.

    Returns:
        List of ints, 0 for what lies above the stages.

    Raises:
        ValueError: If the type is "group" and a stage has not the depth that groups are defined for.
    """
    places = [_place(path) for path in paths]
    depths = defaultdict(int)
    for stage, block in filter(None, places):
        depths[stage] = max(depths[stage], block + 1)
    if layer_decay_type == "group":
        _check_group_depths(depths)
        return [GROUPS - _group(*place) if place else 0 for place in places]
    above = {stage: sum(depth for other, depth in depths.items() if other >= stage) for stage in depths}
    return [above[place[0]] - max(place[1], 0) if place else 0 for place in places]


BEFORE = -1  # the "block" of the stem and of the downsampling between stages
PLACE = re.compile(
    r"stem_(?:conv|norm)|downsample_(?P<before>[1-3])_(?:conv|norm)|stages_(?P<stage>[0-3])_(?P<block>\d+)"
)


def _place(path):
    """The (stage, block) of a weight, `None` if it is not in the stem or a stage."""
    for segment in path.split("/"):
        if match := PLACE.fullmatch(segment):
            stage, block = match["stage"] or match["before"] or 0, match["block"] or BEFORE
            return int(stage), int(block)
    return None


def _group(stage, block):
    """The layer group of a weight, 0 to 12, as the official code has them."""
    if (stage, block) == (0, BEFORE):
        return 0
    return (1, 2, 3 + max(block, 0) // 3, 12)[stage]


def _check_group_depths(depths):
    # A stage without trained blocks, that is, a frozen one, shows no depth.
    if any(depth and GROUP_DEPTHS.get(stage) != depth for stage, depth in depths.items()):
        found = ", ".join(f"stage {stage}: {depth}" for stage, depth in sorted(depths.items()))
        raise ValueError(
            f"layer_decay_type='group' is defined for depths {tuple(GROUP_DEPTHS.values())} (base, large, huge); "
            f"use 'single'. Received: weights with blocks up to {found}"
        )
