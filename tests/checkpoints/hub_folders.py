"""Small copies of the folders that transformers 5 and timm 1 write, made without either."""

import json

from safetensors.numpy import save

import keras_cnv2

SIZE = {"depths": (1, 2, 1, 1), "dims": (4, 6, 8, 10)}
NAMES = ("cat", "dog", "owl")
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.125)

TRANSFORMERS = {
    "architectures": ["ConvNextV2ForImageClassification"],
    "depths": [1, 2, 1, 1],
    "drop_path_rate": 0.0,
    "dtype": "float32",
    "hidden_act": "gelu",
    "hidden_sizes": [4, 6, 8, 10],
    "id2label": {str(number): name for number, name in enumerate(NAMES)},
    "image_size": 224,
    "initializer_range": 0.02,
    "label2id": {name: number for number, name in enumerate(NAMES)},
    "layer_norm_eps": 1e-12,
    "model_type": "convnextv2",
    "num_channels": 3,
    "num_stages": 4,
    "out_features": ["stage4"],
    "out_indices": [4],
    "patch_size": 4,
    "stage_names": ["stem", "stage1", "stage2", "stage3", "stage4"],
    "transformers_version": "5.24.0",
}
PREPROCESSOR = {
    "crop_pct": 0.95,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [*MEAN],
    "image_processor_type": "ConvNextImageProcessor",
    "image_std": [*STD],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 96},
}
TIMM = {
    "architecture": "convnextv2_atto",
    "num_classes": 3,
    "num_features": 10,
    "global_pool": "avg",
    "label_names": ["n1", "n2", "n3"],
    "label_descriptions": dict(zip(("n1", "n2", "n3"), NAMES)),
    "model_args": {"depths": [1, 2, 1, 1], "dims": [4, 6, 8, 10]},
    "pretrained_cfg": {
        "tag": "mine",
        "custom_load": False,
        "input_size": [3, 96, 96],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [*MEAN],
        "std": [*STD],
        "num_classes": 3,
        "pool_size": [7, 7],
        "first_conv": "stem.0",
        "classifier": "head.fc",
        "license": "mit",
    },
}
CARD = "---\nlicense: apache-2.0\ntags:\n- vision\n---\n# A model\n"


def new_classifier(**arguments):
    return keras_cnv2.ConvNeXtV2(**{**SIZE, "classes": 3, **arguments})


def as_bytes(value):
    return json.dumps(value).encode()


def transformers_folder(model, config=None, preprocessor=PREPROCESSOR, card=CARD):
    """Returns a dict from names of files to bytes. Entries of `config` and `preprocessor` that are `None` go."""
    files = {
        "config.json": as_bytes({**TRANSFORMERS, **(config or {})}),
        "model.safetensors": save(keras_cnv2.state_dict(model, "transformers"), {"format": "pt"}),
    }
    if preprocessor is not None:
        files["preprocessor_config.json"] = as_bytes(preprocessor)
    return files | ({"README.md": card.encode()} if card else {})


def timm_folder(model, config=None, pretrained=None):
    """As `transformers_folder`; `pretrained` are entries of "pretrained_cfg"."""
    config = {**TIMM, **(config or {}), "pretrained_cfg": {**TIMM["pretrained_cfg"], **(pretrained or {})}}
    return {
        "config.json": as_bytes(config),
        "model.safetensors": save(keras_cnv2.state_dict(model, "timm"), {"format": "pt"}),
    }


def sharded(files, shards=2):
    """Splits "model.safetensors" as transformers does."""
    from safetensors.numpy import load

    files = dict(files)
    tensors = load(files.pop("model.safetensors"))
    names = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
    places = {tensor: names[number % shards] for number, tensor in enumerate(tensors)}
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    parts = {name: save({k: tensors[k] for k, place in places.items() if place == name}) for name in names}
    return {**files, **parts, "model.safetensors.index.json": as_bytes(index)}


def write(folder, files):
    """Writes the files into a folder and returns it."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
