"""The names of the weights in other implementations: one ordered table per dialect.

A row has the Keras path, the name in the dialect, and the layouts of both arrays.
"""

import re

from keras_cnv2.checkpoints.layout import Layout


class Dialect:
    """One way to name the weights.

    Args:
        name: Name of the dialect, for messages.
        rows: List of (Keras path, name in the dialect, layout). "{0}" and "{1}" stand for numbers.
    """

    def __init__(self, name, rows):
        self.name = name
        self.rows = rows
        self._by_path = [(_pattern(path), name, layout) for path, name, layout in rows]
        self._by_name = [(_pattern(name), path, layout) for path, name, layout in rows]

    def name_of(self, path):
        """The name and the layout of the weight at a Keras path; `None` if the dialect has no name for it."""
        return _translate(path, self._by_path)

    def path_of(self, name):
        """The Keras path and the layout of the weight with this name; `None` if the dialect has no such name."""
        return _translate(name, self._by_name)

    def knows(self, name, rank):
        """Whether a tensor of this name and rank belongs to the dialect."""
        found = self.path_of(name)
        return found is not None and len(found[1].groups) == rank


def _pattern(template):
    return re.compile(re.sub(r"\\{\d\\}", r"(\\d+)", re.escape(template)), re.ASCII)


def _translate(text, table):
    for pattern, template, layout in table:
        if match := pattern.fullmatch(text):
            return template.format(*match.groups()), layout
    return None


VECTOR = Layout("c", "c")


def _weights(first, layout, second="bias", second_layout=VECTOR):
    """Rows for the two weights of a layer with a kernel and a bias."""
    return [("kernel", first, layout), ("bias", second, second_layout)]


def _affine(gamma, beta, layout):
    """Rows for the two weights of a layer that scales and shifts."""
    return [("gamma", gamma, layout), ("beta", beta, layout)]


CONV = _weights("weight", Layout("hwio", "oihw"))
DEPTHWISE = _weights("weight", Layout("hwc1", "c1hw"))
DENSE = _weights("weight", Layout("io", "oi"))
POINTWISE = _weights("weight", Layout("io", "oi11"))  # a dense layer in Keras, a 1x1 convolution in the dialect
NORM = _affine("weight", "bias", VECTOR)
GRN = _affine("gamma", "beta", Layout("c", "111c"))

# MinkowskiEngine's layouts: a kernel has one axis for its positions, column by column; biases have a leading axis of
# length one; names contain those of wrapper modules ("linear", "ln").
SPARSE_CONV = _weights("kernel", Layout("hwio", "(wh)io"), second_layout=Layout("c", "1c"))
SPARSE_DEPTHWISE = _weights("kernel", Layout("hwc1", "(wh)c"), second_layout=Layout("c", "1c"))
SPARSE_DENSE = _weights("linear.weight", Layout("io", "oi"), "linear.bias")
SPARSE_NORM = _affine("ln.weight", "ln.bias", VECTOR)
SPARSE_GRN = _affine("gamma", "beta", Layout("c", "1c"))


def _layer(ours, theirs, weights):
    return [(f"{ours}/{ours_too}", f"{theirs}.{name}", layout) for ours_too, name, layout in weights]


def _block(ours, theirs, **layers):
    rows = (_layer(f"{ours}/{layer}", f"{theirs}.{name}", weights) for layer, (name, weights) in layers.items())
    return [row for layer in rows for row in layer]


def _official_block(ours, theirs):
    return _block(
        ours,
        theirs,
        dwconv=("dwconv", DEPTHWISE),
        norm=("norm", NORM),
        pwconv1=("pwconv1", DENSE),
        grn=("grn", GRN),
        pwconv2=("pwconv2", DENSE),
    )


def _official_encoder(prefix):
    return [
        *_layer("stem_conv", f"{prefix}downsample_layers.0.0", CONV),
        *_layer("stem_norm", f"{prefix}downsample_layers.0.1", NORM),
        *_layer("downsample_{0}_norm", f"{prefix}downsample_layers.{{0}}.0", NORM),
        *_layer("downsample_{0}_conv", f"{prefix}downsample_layers.{{0}}.1", CONV),
        *_official_block("stages_{0}_{1}", f"{prefix}stages.{{0}}.{{1}}"),
    ]


HEAD = [*_layer("norm", "norm", NORM), *_layer("head", "head", DENSE)]

# The norms of the pyramid's levels, with the names of the official backbones for detection and segmentation.
PYRAMID_NORMS = _layer("pyramid_norm_{0}", "norm{0}", NORM)

DECODER = [
    *_layer("proj", "proj", POINTWISE),
    ("mask_token/token", "mask_token", Layout("c", "1c11")),
    *_official_block("decoder_{0}", "decoder.{0}"),
    *_layer("pred", "pred", POINTWISE),
]

# The dense models of facebookresearch/ConvNeXt-V2.
OFFICIAL = Dialect("official", [*_official_encoder(""), *PYRAMID_NORMS, *HEAD, *DECODER])

# Its pre-training model with dense shapes. `save_checkpoint` writes FCMAE in this dialect.
OFFICIAL_FCMAE = Dialect("official fcmae", [*_official_encoder("encoder."), *DECODER])

# Its pre-training model with the sparse layers, as its code saves it.
OFFICIAL_SPARSE = Dialect(
    "official sparse fcmae",
    [
        *_layer("stem_conv", "encoder.downsample_layers.0.0", CONV),
        *_layer("stem_norm", "encoder.downsample_layers.0.1", NORM),
        *_layer("downsample_{0}_norm", "encoder.downsample_layers.{0}.0", SPARSE_NORM),
        *_layer("downsample_{0}_conv", "encoder.downsample_layers.{0}.1", SPARSE_CONV),
        *_block(
            "stages_{0}_{1}",
            "encoder.stages.{0}.{1}",
            dwconv=("dwconv", SPARSE_DEPTHWISE),
            norm=("norm", SPARSE_NORM),
            pwconv1=("pwconv1", SPARSE_DENSE),
            grn=("grn", SPARSE_GRN),
            pwconv2=("pwconv2", SPARSE_DENSE),
        ),
        *DECODER,
    ],
)


def _timm(name, pointwise):
    return Dialect(
        name,
        [
            *_layer("stem_conv", "stem.0", CONV),
            *_layer("stem_norm", "stem.1", NORM),
            *_layer("downsample_{0}_norm", "stages.{0}.downsample.0", NORM),
            *_layer("downsample_{0}_conv", "stages.{0}.downsample.1", CONV),
            *_block(
                "stages_{0}_{1}",
                "stages.{0}.blocks.{1}",
                dwconv=("conv_dw", DEPTHWISE),
                norm=("norm", NORM),
                pwconv1=("mlp.fc1", pointwise),
                grn=("mlp.grn", NORM),
                pwconv2=("mlp.fc2", pointwise),
            ),
            *_layer("norm", "head.norm", NORM),
            *_layer("head", "head.fc", DENSE),
        ],
    )


TIMM = _timm("timm", DENSE)
TIMM_CONV_MLP = _timm("timm with 1x1 convolutions", POINTWISE)


def _features_only(dialect):
    """The names in timm's models of `features_only=True`: there, the layers of stem and stages are a flat list."""
    rows = [(path, re.sub(r"^(stem|stages)\.", r"\1_", name), layout) for path, name, layout in dialect.rows]
    return Dialect(f"{dialect.name}, features only", rows)


def _mm(name, pointwise, prefix, norms):
    """The names of OpenMMLab's mmpretrain, whose backbones mmdetection and mmsegmentation use, too."""
    return Dialect(
        name,
        [
            *_layer("stem_conv", f"{prefix}downsample_layers.0.0", CONV),
            *_layer("stem_norm", f"{prefix}downsample_layers.0.1", NORM),
            *_layer("downsample_{0}_norm", f"{prefix}downsample_layers.{{0}}.0", NORM),
            *_layer("downsample_{0}_conv", f"{prefix}downsample_layers.{{0}}.1", CONV),
            *_block(
                "stages_{0}_{1}",
                f"{prefix}stages.{{0}}.{{1}}",
                dwconv=("depthwise_conv", DEPTHWISE),
                norm=("norm", NORM),
                pwconv1=("pointwise_conv1", pointwise),
                grn=("grn", _affine("gamma", "beta", VECTOR)),
                pwconv2=("pointwise_conv2", pointwise),
            ),
            *norms,
        ],
    )


# In a classifier, the norm of the last stage follows the pooling and is the final norm.
MM_HEAD = [*_layer("norm", "backbone.norm3", NORM), *_layer("head", "head.fc", DENSE)]
MM = tuple(
    dialect
    for suffix, pointwise in (("", DENSE), (" with 1x1 convolutions", POINTWISE))
    for dialect in (
        _mm(f"mmpretrain backbone{suffix}", pointwise, "", PYRAMID_NORMS),
        _mm(f"mmpretrain{suffix}", pointwise, "backbone.", MM_HEAD),
    )
)


def _transformers(name, prefix):
    return Dialect(
        name,
        [
            *_layer("stem_conv", f"{prefix}embeddings.patch_embeddings", CONV),
            *_layer("stem_norm", f"{prefix}embeddings.layernorm", NORM),
            *_layer("downsample_{0}_norm", f"{prefix}encoder.stages.{{0}}.downsampling_layer.0", NORM),
            *_layer("downsample_{0}_conv", f"{prefix}encoder.stages.{{0}}.downsampling_layer.1", CONV),
            *_block(
                "stages_{0}_{1}",
                f"{prefix}encoder.stages.{{0}}.layers.{{1}}",
                dwconv=("dwconv", DEPTHWISE),
                norm=("layernorm", NORM),
                pwconv1=("pwconv1", DENSE),
                grn=("grn", _affine("weight", "bias", Layout("c", "111c"))),
                pwconv2=("pwconv2", DENSE),
            ),
            *(
                row
                for stage in range(4)  # transformers counts stages from one
                for row in _layer(f"pyramid_norm_{stage}", f"{prefix}hidden_states_norms.stage{stage + 1}", NORM)
            ),
            *_layer("norm", f"{prefix}layernorm", NORM),
            *_layer("head", "classifier", DENSE),
        ],
    )


TRANSFORMERS = _transformers("transformers", "convnextv2.")
TRANSFORMERS_BARE = _transformers("transformers without a head", "")  # ConvNextV2Model and ConvNextV2Backbone


def _keras_rows():
    """Yields the rows for Keras files, which number the weights of a layer: the i-th weight of "head" is "head/i"."""
    count = {}
    for path, _, layout in OFFICIAL.rows:
        layer = path.rpartition("/")[0]
        index = count[layer] = count.get(layer, -1) + 1
        yield path, f"{layer}/{index}", Layout(layout.ours, layout.ours)


KERAS = Dialect("keras", [*_keras_rows()])

# The Keras paths themselves as names.
KERAS_PATHS = Dialect(
    "keras paths", [(path, path, Layout(layout.ours, layout.ours)) for path, _, layout in OFFICIAL.rows]
)

DIALECTS = (
    *(OFFICIAL, OFFICIAL_FCMAE, OFFICIAL_SPARSE, TIMM, TIMM_CONV_MLP, TRANSFORMERS, TRANSFORMERS_BARE),
    *(KERAS, KERAS_PATHS, _features_only(TIMM), _features_only(TIMM_CONV_MLP), *MM),
)

# The parts of a model that a checkpoint may have or lack as a whole, by Keras path. All other weights are the encoder.
PARTS = {
    "norm": re.compile(r"norm/"),
    "head": re.compile(r"head/"),
    "pyramid_norms": re.compile(r"pyramid_norm_\d/"),
    "decoder": re.compile(r"(proj|mask_token|decoder_\d+|pred)/"),
}


def part_of(path):
    """The part of the model that a Keras path belongs to: "encoder" or a key of `PARTS`."""
    return next((part for part, pattern in PARTS.items() if pattern.match(path)), "encoder")


STAGE = re.compile(r"(?:downsample|stages|pyramid_norm)_(\d)")


def stage_of(path):
    """The number of the stage that a Keras path belongs to; `None` for the stem, and outside the encoder."""
    found = STAGE.match(path)
    return int(found[1]) if found else None


def detect(shapes):
    """Returns the dialect that knows most of the tensors, and their number; `None` and 0 if no dialect knows any.

    Args:
        shapes: Dict from names to shapes.
    """
    known = {dialect: sum(dialect.knows(name, len(shape)) for name, shape in shapes.items()) for dialect in DIALECTS}
    best = max(known, key=known.get)
    return (best, known[best]) if known[best] else (None, 0)
