"""Two ways to run a backbone on masked images. They use the same weights and compute the same numbers.

Both take the backbone, images `(N, H, W, channels)`, masks `(N, h, w)` (1 = masked), the number of visible patches and
whether the model is training. They return the features of the last stage, `(N, h, w, D)`, zero where masked.
"""

from functools import partial

from keras import ops

from keras_cnv2.fcmae import masking


def encode_dense(backbone, images, hidden, visible, training):
    """Computes all positions. Masks are applied before and after each depthwise convolution and after each block.

    Source: ConvNeXt V2 (arXiv 2301.00808), appendix A.2.
    """
    # Masked pixels are replaced first: later the masks are only factors, and zero times NaN is NaN.
    covered = masking.enlarge(hidden, images.shape[1] // hidden.shape[1])
    x = _stem(backbone, ops.where(ops.expand_dims(covered, -1) > 0, 0.0, images))
    for stage in range(4):
        x = _downsample(backbone, stage, x)
        mask = masking.enlarge(hidden, x.shape[1] // hidden.shape[1])
        for block in _blocks(backbone, stage):
            x = block(x, mask, training=training)
    return x


def encode_visible(backbone, images, hidden, visible, training):
    """Computes the visible patches only. The depthwise convolutions use their positions to find neighbours."""
    patches = masking.VisiblePatches(hidden, visible)
    # A visible patch is treated as a small image: the windows of stem and downsampling do not cross its edge.
    x = _stem(backbone, patches.gather(images))
    for stage in range(4):
        x = _downsample(backbone, stage, x)  # (N * V, p, p, C)
        small_images = (-1, *x.shape[1:])
        tokens = ops.reshape(x, (-1, visible * x.shape[1] ** 2, x.shape[3]))  # (N, V * p * p, C)
        for block in _blocks(backbone, stage):
            branch = block.checkpointed(partial(_branch, block, patches, small_images, training))
            tokens = tokens + block.drop_path(branch(tokens), training=training)
        x = ops.reshape(tokens, small_images)
    return patches.scatter(x)


def _branch(block, patches, small_images, training, tokens):
    x = block.dwconv(ops.reshape(tokens, small_images), patches=patches, training=training)
    return block.mlp(ops.reshape(x, (-1, *tokens.shape[1:])), training=training)


ENCODERS = {"visible": encode_visible, "dense": encode_dense}


def _stem(backbone, images):
    if backbone.include_preprocessing:
        images = backbone.get_layer("preprocessing")(images)
    return backbone.get_layer("stem_norm")(backbone.get_layer("stem_conv")(images))


def _downsample(backbone, stage, x):
    if stage == 0:
        return x
    x = backbone.get_layer(f"downsample_{stage}_norm")(x)
    return backbone.get_layer(f"downsample_{stage}_conv")(x)


def _blocks(backbone, stage):
    return [backbone.get_layer(f"stages_{stage}_{block}") for block in range(backbone.depths[stage])]
