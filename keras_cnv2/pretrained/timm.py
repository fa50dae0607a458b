"""config.json of timm, in the form of its models on the hub."""

from keras_cnv2.sizes import size_of

# The epsilon of norms.
EPSILON = 1e-6

# The architecture of timm that any other size is made from, by its arguments.
TEMPLATE = "tiny"


def check(model):
    """Raises a `ValueError` for models whose numbers timm would not give."""
    if model.stem_stride == 2:
        raise ValueError(
            "timm has no ConvNeXt V2 with a stem of stride 2: its first stage would halve the map once more. Give "
            f"layout='transformers' or 'keras'. Received: stem_stride={model.stem_stride}"
        )
    if getattr(model, "norm_epsilon", EPSILON) != EPSILON:
        raise ValueError(
            f"timm's models have the same epsilon in all norms, {EPSILON:g}: give layout='transformers' or 'keras'. "
            f"Received: norm_epsilon={model.norm_epsilon:g}"
        )
    if getattr(model, "pyramid_norms", False):
        raise ValueError(
            "timm has no names for the norms of a pyramid: give layout='transformers' or 'keras'. "
            "Received: pyramid_norms=True"
        )


def architecture(model):
    """The name of timm's function that builds a model."""
    return f"convnextv2_{size_of(model.depths, model.dims) or TEMPLATE}"


def config(facts):
    """Returns the contents of config.json."""
    model = facts.model
    classes = model.classes if facts.has_head else 0
    found = {
        "architecture": architecture(model),
        "num_classes": classes,
        "num_features": model.dims[-1],
        "global_pool": _pool(model),
        "label_names": facts.class_names and [*facts.class_names],
        "model_args": _arguments(model),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [facts.channels, *facts.sides],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": facts.crop or 1.0,
            "crop_mode": "center" if facts.crop else "squash",
            "mean": [*facts.mean],
            "std": [*facts.std],
            "num_classes": classes,
            "first_conv": "stem.0",
            "classifier": "head.fc",
        },
    }
    return {name: value for name, value in found.items() if value is not None and value != {}}


def _pool(model):
    return "avg" if getattr(model, "include_top", False) else getattr(model, "pooling", None) or ""


def _arguments(model):
    """The arguments of the architecture in which the model differs from its defaults."""
    own = {}
    if size_of(model.depths, model.dims) is None:
        own |= {"depths": [*model.depths], "dims": [*model.dims]}
    if model.stem_stride != 4:
        own["patch_size"] = model.stem_stride
    if _pool(model) != "avg":
        own["global_pool"] = _pool(model)
    if getattr(model, "output_stride", None):
        own["output_stride"] = model.output_stride
    if not _pool(model):  # without timm's final norm, for which the file then has no weights
        own["pretrained_strict"] = False
    return own
