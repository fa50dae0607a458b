"""config.json and preprocessor_config.json of Hugging Face's transformers, which transformers.js reads as well."""

from keras_cnv2.images.pictures import CROP, default_resize

# The epsilon of the final LayerNorm, for backbones, which have none. The default of transformers is 1e-12.
EPSILON = 1e-6

# PIL's number of bicubic interpolation.
BICUBIC = 3


def check(model):
    """Raises a `ValueError` for models whose numbers transformers would not give."""
    if getattr(model, "pooling", None) == "max":
        raise ValueError(
            "transformers has no ConvNeXt V2 with max pooling: give layout='timm' or 'keras'. Received: pooling='max'"
        )

    if getattr(model, "output_stride", None):
        raise ValueError(
            "transformers has no ConvNeXt V2 with dilations: give layout='timm' or 'keras'. "
            f"Received: output_stride={model.output_stride}"
        )


def architecture(model):
    """The class of transformers for a model."""
    if getattr(model, "include_top", False):
        return "ConvNextV2ForImageClassification"
    return "ConvNextV2Backbone" if getattr(model, "pyramid_norms", False) else "ConvNextV2Model"


def config(facts):
    """Returns the contents of config.json."""
    model = facts.model
    height, width = facts.sides
    found = {
        "model_type": "convnextv2",
        "architectures": [architecture(model)],
        "num_channels": facts.channels,
        "patch_size": model.stem_stride,
        "num_stages": 4,
        "depths": [*model.depths],
        "hidden_sizes": [*model.dims],
        "hidden_act": "gelu",
        "layer_norm_eps": getattr(model, "norm_epsilon", EPSILON),
        "drop_path_rate": model.drop_path_rate,
        "initializer_range": 0.02,
        "image_size": height if height == width else [height, width],
    }
    if getattr(model, "pyramid_norms", False):
        layers = model.pyramid_level_inputs.values()
        found["out_features"] = [f"stage{int(name[-1]) + 1}" for name in layers]  # pyramid_norm_0 is of stage 1
    return found | (_labels(facts) if facts.has_head else {})


def _labels(facts):
    """Names of the classes, and how logits become probabilities. Classes without names have those of transformers."""
    names = facts.class_names or [f"LABEL_{index}" for index in range(facts.model.classes)]
    sigmoid = facts.activation == "sigmoid" and facts.model.classes > 1
    return {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        **({"problem_type": "multi_label_classification"} if sigmoid else {}),
    }


def preprocessor_config(facts):
    """Returns the contents of preprocessor_config.json."""
    return {
        **_resizing(facts.sides, facts.crop),
        "do_resize": True,
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [*facts.mean],
        "image_std": [*facts.std],
    }


def _resizing(sides, crop):
    """The image processor and its arguments: ConvNeXt's, where it can resize in this way.

    It crops below 384 pixels and squashes from 384 on.
    """
    height, width = sides
    both = {"height": height, "width": width}
    if height == width and (crop is not None) == (default_resize(height) == "crop"):
        return {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": height},
            "crop_pct": crop or CROP,
        }
    if crop is None:
        return {"image_processor_type": "ViTImageProcessor", "size": both}
    return {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": int(height / crop)},
        "do_center_crop": True,
        "crop_size": both,
    }
