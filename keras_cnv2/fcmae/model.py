from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_cnv2.arguments import positive_int
from keras_cnv2.distribute import replicas
from keras_cnv2.fcmae import checks, encoders, masking
from keras_cnv2.fcmae.mask_token import MaskToken
from keras_cnv2.images.normalization import preprocess_input, restore_pixels
from keras_cnv2.layers import ConvNeXtV2Block
from keras_cnv2.layers.block import kernel_initializer
from keras_cnv2.layers.settings import policy_at
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.configuration import from_nested_config, layers_config, origin_config
from keras_cnv2.models.stages import total_stride


@keras.saving.register_keras_serializable(package="keras_cnv2")
class FCMAE(keras.Model):
    """Fully convolutional masked autoencoder: pre-trains a ConvNeXt V2 encoder on images without labels.

    Most patches of an image are masked. The encoder sees the visible patches, and a light decoder reconstructs the
    masked ones. The side of a patch is the encoder's total stride, `8 * stem_stride` pixels.

    ```python
    fcmae = keras_cnv2.FCMAE("atto", image_size=224)
    fcmae.compile(optimizer=keras.optimizers.AdamW(1.5e-4, weight_decay=0.05, beta_2=0.95))
    fcmae.fit(images)  # or any dataset of images
    pictures = fcmae.reconstruct(images[:8])
    fcmae.backbone  # what fine-tuning starts from
    ```

    The features of an image do not depend on other images of the batch, nor on masked pixels.

    Labels, `y`, are ignored, so datasets of (images, labels) can be used. A third element, `sample_weight` `(N,)`, has
    factors on the errors of the images; without labels, Keras's `fit` drops it.

    Args:
        backbone: Name of a published size ("atto" to "huge"), or a `keras_cnv2.ConvNeXtV2Backbone`.
        image_size: Int or (height, width) in pixels, multiples of the patch.
        channels: Int, the number of channels of the images. By default 3, or that of a given backbone.
        stem_stride: 1, 2 or 4. By default 4, or that of a given backbone.
        include_preprocessing: Bool, whether the model takes images in 0..255. By default true, or the value of a given
            backbone.
        mask_ratio: Float between 0 and 1, the share of masked patches. `int(patches * (1 - mask_ratio))` stay visible.
        decoder_dim: Int, the number of channels of the decoder.
        decoder_depth: Int, the number of blocks of the decoder.
        norm_pix_loss: Bool, whether each target patch is normalised with its own mean and standard deviation.
        encoder: "visible" computes the visible patches only. "dense" computes all positions, and applies masks before
            and after each depthwise convolution. Both give the same numbers; "dense" is slower.
        seed: Optional int, the seed of the masks. In `fit` the masks differ for every step and image; in `evaluate`
            and `predict` they are the same each time.
        dtype: Dtype policy, by default the global one, or that of a given backbone.
        name: Name of the model.

    Call arguments:
        images: Tensor `(N, height, width, channels)`, or a dict of "images" and "hidden".
        hidden: Optional masks `(N, height / patch, width / patch)`, 1 = masked; drawn if `None`. The encoder "visible"
            needs the same number of visible patches in every image. Inside a compiled function, where the values are
            not known, it must be the number that follows from `mask_ratio`; for images with another number the output
            is NaN.

    Returns:
        Dict of "prediction" `(N, patches, patch * patch * channels)`, the values of a patch ordered (row, column,
        channel); "hidden", the masks that were used; and "features" `(N, height / patch, width / patch, dims[3])`,
        zero where masked.

    Raises:
        ValueError: If an argument is out of range, or inputs have the wrong shape or invalid values.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.1 and appendix A.2. The statistics of GRN are computed for each
        image, not over the visible positions of the whole batch as in the official sparse code.
    """

    pretrained: Mapping[str, str] | None = None

    def __init__(
        self,
        backbone: str | ConvNeXtV2Backbone,
        image_size: int | Sequence[int] = 224,
        channels: int | None = None,
        stem_stride: int | None = None,
        include_preprocessing: bool | None = None,
        mask_ratio: float = 0.6,
        decoder_dim: int = 512,
        decoder_depth: int = 1,
        norm_pix_loss: bool = True,
        encoder: str = "visible",
        seed: int | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = "fcmae",
    ):
        checks.check_backbone(backbone)
        given = isinstance(backbone, ConvNeXtV2Backbone)
        # autocast=False: images stay float32 until they are normalised. Half precision is too coarse for 0..255.
        super().__init__(dtype=backbone.dtype_policy if given and dtype is None else dtype, autocast=False, name=name)
        if not given:
            backbone = ConvNeXtV2Backbone(
                backbone,
                input_shape=(None, None, 3 if channels is None else channels),
                stem_stride=4 if stem_stride is None else stem_stride,
                include_preprocessing=True if include_preprocessing is None else include_preprocessing,
                dtype=self.dtype_policy,
                name="backbone",
            )
        self.backbone: ConvNeXtV2Backbone = backbone
        self.channels = backbone.input_shape[-1]
        self.stem_stride = backbone.stem_stride
        self.include_preprocessing = backbone.include_preprocessing
        checks.check_same(self, channels=channels, stem_stride=stem_stride, include_preprocessing=include_preprocessing)
        self.patch = total_stride(self.stem_stride)
        self.image_size = checks.sides(image_size, self.patch)
        self.mask_ratio = mask_ratio
        self.decoder_dim = decoder_dim = positive_int("decoder_dim", decoder_dim)
        self.decoder_depth = decoder_depth = positive_int("decoder_depth", decoder_depth)
        self.norm_pix_loss = norm_pix_loss
        self.encoder = encoder
        self.grid = tuple(side // self.patch for side in self.image_size)
        self.visible = checks.visible_patches(self.grid, mask_ratio)
        if encoder not in encoders.ENCODERS:
            raise ValueError(f"encoder must be one of {tuple(encoders.ENCODERS)}. Received: encoder={encoder!r}")
        self._training_masks = keras.random.SeedGenerator(seed)
        # A random seed is stored as well, so that evaluation has the same masks after saving and loading.
        self.seed = int(ops.convert_to_numpy(self._training_masks.state)[0]) if seed is None else seed
        self._evaluation_masks = keras.random.SeedGenerator(self.seed)
        self._first_masks = ops.convert_to_numpy(self._evaluation_masks.state)

        policy = self.dtype_policy
        self.proj = keras.layers.Dense(
            decoder_dim, kernel_initializer=kernel_initializer(), dtype=policy_at(policy, "proj"), name="proj"
        )
        self.mask_token = MaskToken(dtype=policy, name="mask_token")
        self.decoder = [ConvNeXtV2Block(decoder_dim, dtype=policy, name=f"decoder_{i}") for i in range(decoder_depth)]
        self.pred = keras.layers.Dense(
            self.patch**2 * self.channels,
            kernel_initializer=kernel_initializer(),
            dtype=policy_at(policy, "pred"),
            name="pred",
        )
        self.proj.build((None, *self.grid, backbone.dims[-1]))
        for layer in (self.mask_token, *self.decoder, self.pred):
            layer.build((None, *self.grid, decoder_dim))
        self.built = True

    def call(self, images: Any, hidden: Any = None, training: bool | None = False) -> dict[str, Any]:
        images, hidden = checks.split(images, hidden)
        images = self._fitting(images)
        visible, valid = self.visible, None
        if hidden is None:
            seed = self._training_masks if training else self._evaluation_masks
            hidden = masking.random_hidden(ops.shape(images)[0], *self.grid, visible, seed)
        else:
            hidden = checks.fitting("hidden", hidden, self.grid)
            values = checks.known_masks(hidden)
            if self.encoder == "visible":
                visible, valid = checks.count_visible(hidden, values, visible)

        features = encoders.ENCODERS[self.encoder](self.backbone, images, hidden, visible, training)  # (N, h, w, D)
        if valid is not None:
            features = ops.where(valid, features, float("nan"))
        x = self.mask_token(self.proj(features), hidden)
        for block in self.decoder:
            x = block(x, training=training)
        prediction = ops.reshape(self.pred(x), (-1, self.grid[0] * self.grid[1], self.pred.units))
        return {"prediction": prediction, "hidden": hidden, "features": features}

    def compute_output_spec(self, images: Any, hidden: Any = None, training: bool | None = False) -> dict[str, Any]:
        # Without this method, Keras may try `call` on placeholder values, which are no valid masks.
        images, masks = checks.split(images, hidden)
        batch_size = self._fitting(images).shape[0]
        if masks is not None:
            checks.fitting("hidden", masks, self.grid)
        prediction = (batch_size, self.grid[0] * self.grid[1], self.pred.units)
        grid = (batch_size, *self.grid)
        return {
            "prediction": keras.KerasTensor(prediction, self.compute_dtype),
            "hidden": keras.KerasTensor(grid, "float32"),
            "features": keras.KerasTensor((*grid, self.backbone.dims[-1]), self.backbone.compute_dtype),
        }

    def _fitting(self, images):
        return checks.fitting("images", images, (*self.image_size, self.channels))

    def reconstruction_loss(self, images: Any, outputs: Mapping[str, Any], sample_weight: Any = None) -> Any:
        """Computes the mean squared error of the masked patches.

        Args:
            images: Tensor `(N, height, width, channels)`, as given to the model.
            outputs: The outputs of the model for these images.
            sample_weight: Optional tensor `(N,)`, factors on the errors of the images.

        Returns:
            A float32 scalar: the mean over each patch, then over the masked patches of the batch. As in Keras's own
            losses, the second mean divides by the number of patches, not by the sum of their weights.

        Source: ConvNeXt V2 (arXiv 2301.00808), section 3.1, "Reconstruction target".
        """
        target = self._target_patches(images)
        if self.norm_pix_loss:
            mean, std = masking.patch_statistics(target)
            target = (target - mean) / std
        error = ops.mean(ops.square(ops.cast(outputs["prediction"], "float32") - target), axis=-1)
        hidden = ops.reshape(ops.cast(outputs["hidden"], "float32"), (-1, target.shape[1]))
        if sample_weight is not None:
            error = error * ops.reshape(ops.cast(sample_weight, "float32"), (ops.shape(error)[0], 1))
        return ops.sum(error * hidden) / ops.maximum(ops.sum(hidden), 1)

    def _target_patches(self, images):
        images = self._fitting(images)
        if self.include_preprocessing:
            images = preprocess_input(images, self.backbone.mean, self.backbone.std)
        return masking.to_patches(images, self.patch)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: None = None,
        loss_weights: None = None,
        metrics: None = None,
        weighted_metrics: None = None,
        **kwargs: Any,
    ) -> None:
        """As in `keras.Model`, but without `loss` (the model has its own) and metrics (there are no labels)."""
        checks.check_loss(loss)
        checks.check_metrics(loss_weights=loss_weights, metrics=metrics, weighted_metrics=weighted_metrics)
        super().compile(optimizer, **kwargs)

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        # Keras's own method does nothing if `compile` is overridden. Older files may have arguments without effect.
        config = {name: value for name, value in config.items() if name not in checks.NOT_COMPILED}
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        images, _ = checks.split(x)
        loss = self.reconstruction_loss(images, y_pred, sample_weight)
        for of_a_layer in self.losses:  # from regularizers and `add_loss`
            loss = loss + ops.cast(ops.sum(of_a_layer), loss.dtype)
        _, count = replicas.replica()  # the gradients of all replicas are summed
        return loss / count

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self._evaluation_masks.state.assign(self._first_masks)
        return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        self._evaluation_masks.state.assign(self._first_masks)
        return super().predict(*args, **kwargs)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: Any = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As in `keras.Model`. By default, `input_signature` has only the images."""
        if input_signature is None:
            input_signature = [keras.InputSpec(dtype="float32", shape=(None, *self.image_size, self.channels))]
        return super().export(filepath, format, verbose, input_signature, **kwargs)

    def reconstruct(self, images: Any, hidden: Any = None) -> np.ndarray:
        """Reconstructs the masked patches of images, for display.

        Visible pixels are copied from the input. With `norm_pix_loss` the model predicts normalised patches; they are
        scaled and shifted by the standard deviation and mean of the true patch.

        Args:
            images: Array or tensor `(N, height, width, channels)`, or a dict of "images" and "hidden".
            hidden: Optional masks `(N, height / patch, width / patch)`, 1 = masked; drawn if `None`.

        Returns:
            A float32 NumPy array of the shape of the images, in the value range of the input.
        """
        images, hidden = checks.split(images, hidden)
        outputs = self(images, hidden=hidden, training=False)
        return ops.convert_to_numpy(self.paint(images, outputs))

    def paint(self, images: Any, outputs: Mapping[str, Any]) -> Any:
        """Does the same as `reconstruct`, from outputs of the model; works in graphs.

        Args:
            images: Tensor `(N, height, width, channels)`, as given to the model.
            outputs: The outputs of the model for these images.

        Returns:
            A float32 tensor of the shape of `images`.
        """
        painted = ops.cast(outputs["prediction"], "float32")
        if self.norm_pix_loss:
            mean, std = masking.patch_statistics(self._target_patches(images))
            painted = painted * std + mean
        painted = masking.from_patches(painted, *self.image_size, self.patch)
        if self.include_preprocessing:
            painted = ops.clip(restore_pixels(painted, self.backbone.mean, self.backbone.std), 0, 255)
        mask = ops.expand_dims(masking.enlarge(outputs["hidden"], self.patch), -1)
        return ops.where(mask > 0, painted, ops.cast(images, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "image_size": self.image_size,
            "channels": self.channels,
            "stem_stride": self.stem_stride,
            "include_preprocessing": self.include_preprocessing,
            "mask_ratio": self.mask_ratio,
            "decoder_dim": self.decoder_dim,
            "decoder_depth": self.decoder_depth,
            "norm_pix_loss": self.norm_pix_loss,
            "encoder": self.encoder,
            "seed": self.seed,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
            **layers_config(self),
            **origin_config(self),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return from_nested_config(cls, config, ("backbone",), custom_objects)
