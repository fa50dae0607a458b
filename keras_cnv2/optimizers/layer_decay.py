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
        paths: The paths of all weights that are trained. Encoders come one after the other, as in a model's
            `trainable_variables`, and each is counted by itself.
        layer_decay_type: "single" or "group", as in `LayerDecayAdamW`.

    Returns:
        List of ints, 0 for what lies above the stages.

    Raises:
        ValueError: If the weights of several encoders are mixed; if the type is "group" and a stage has not the depth
            that groups are defined for.
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
    """How many blocks of each stage there are, as far as they are trained."""
    depths = defaultdict(int)
    for stage, block in places:
        depths[stage] = max(depths[stage], block + 1)
    return depths


def _encoders(paths):
    """The weights of each encoder, a dict from positions in `paths` to places.

    A path seen again begins the next encoder. So does a place below the last one, where an encoder is frozen at the
    bottom and lacks the paths; without any path seen again it is one encoder, in an order of the caller's own.
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
    # Layers in turns look like many encoders, cut off at different stages.
    if len({max(encoder.values())[0] for encoder in encoders if encoder}) > 1:
        raise ValueError(
            "Weights of several encoders must come one encoder after the other, each from its stem up, as in "
            "`model.trainable_variables`, and all must be trained up to the same stage. Received: encoders that end "
            f"with {[paths[max(encoder)] for encoder in encoders][:8]}"
        )
    return encoders


BEFORE = -1  # the "block" of the stem and of the downsampling between stages
PLACE = re.compile(
    r"stem_(?:conv|norm)|downsample_(?P<before>[1-3])_(?:conv|norm)|stages_(?P<stage>[0-3])_(?P<block>\d+)"
)


def _place(path):
    """The (stage, block) of a weight and its path from there on, `None` if it is not in the stem or a stage."""
    segments = path.split("/")
    for number, segment in enumerate(segments):
        if match := PLACE.fullmatch(segment):
            stage, block = match["stage"] or match["before"] or 0, match["block"] or BEFORE
            return (int(stage), int(block)), "/".join(segments[number:])
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
