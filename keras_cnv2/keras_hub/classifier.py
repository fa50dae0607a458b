from collections.abc import Callable
from typing import Any, Self

import keras

from keras_cnv2.checkpoints import load_checkpoint, state_dict
from keras_cnv2.keras_hub.backbone import PACKAGE, ConvNeXtV2Backbone, check_model
from keras_cnv2.keras_hub.converter import ConvNeXtV2ImageConverter
from keras_cnv2.keras_hub.preprocessor import ConvNeXtV2ImageClassifierPreprocessor
from keras_cnv2.layers.block import kernel_initializer
from keras_cnv2.models.classifier import POOLINGS, ConvNeXtV2, check_activation
from keras_cnv2.optional_packages import import_keras_hub

keras_hub = import_keras_hub()


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConvNeXtV2ImageClassifier(keras_hub.models.ImageClassifier):
    """An image classifier of KerasHub on `ConvNeXtV2Backbone`: pooling, LayerNorm and a dense layer.

    `from_model` makes one of any `keras_cnv2.ConvNeXtV2`, with its weights, so published weights and those of your own
    trainings become presets of KerasHub.

    ```python
    from keras_cnv2.keras_hub import ConvNeXtV2ImageClassifier

    model = keras_cnv2.ConvNeXtV2Atto(weights="fcmae_ft_in1k")
    classifier = ConvNeXtV2ImageClassifier.from_model(model)
    probabilities = classifier.predict(images)  # (N, 1000), of images of any size in 0..255
    classifier.save_to_preset("atto_in1k")
    classifier = ConvNeXtV2ImageClassifier.from_preset("atto_in1k", num_classes=5)  # to be fine-tuned
    ```

    Args:
        backbone: A `ConvNeXtV2Backbone` without `pyramid_norms`.
        num_classes: Int, the number of classes.
        preprocessor: A `ConvNeXtV2ImageClassifierPreprocessor`, or `None` for images of the right size that are
            already normalised.
        pooling: "avg" or "max".
        activation: Activation of the dense layer. `None` for logits.
        dropout: Float in `[0, 1)`, the rate of dropout before the dense layer.
        head_dtype: Dtype policy of the layers after the backbone. By default they compute in the backbone's variable
            dtype, so outputs are float32 under the mixed policies.
        **kwargs: `name`, and `compile`, whether the model is compiled with default values (true).

    Call arguments:
        images: Tensor `(N, height, width, channels)`, normalised. `predict`, `fit` and `evaluate` take images for the
            preprocessor.

    Returns:
        Class scores `(N, num_classes)`.

    Raises:
        ValueError: If an argument is out of range.
    """

    backbone_cls = ConvNeXtV2Backbone
    preprocessor_cls = ConvNeXtV2ImageClassifierPreprocessor

    def __init__(
        self,
        backbone: ConvNeXtV2Backbone,
        num_classes: int,
        preprocessor: Any = None,
        pooling: str = "avg",
        activation: str | Callable | None = None,
        dropout: float = 0.0,
        head_dtype: str | keras.DTypePolicy | None = None,
        **kwargs: Any,
    ):
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {tuple(POOLINGS)}. Received: pooling={pooling!r}")
        if getattr(backbone, "pyramid_norms", False):
            raise ValueError(
                "A classifier takes a backbone with one output, built with pyramid_norms=False. "
                f"Received: backbone={backbone.name!r} with pyramid_norms=True"
            )
        check_activation(num_classes, activation)
        full = backbone.dtype_policy.variable_dtype
        policy = keras.dtype_policies.get(head_dtype or full)
        is_quantized = isinstance(policy, keras.dtype_policies.QuantizedDTypePolicy)
        others = full if is_quantized else policy  # layers without a kernel have no quantized form

        self.activation = activation  # here, for the constructor below compiles: the loss depends on it
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.pooler = POOLINGS[pooling](dtype=others, name="pooler")
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=others, name="norm")
        self.output_dropout = keras.layers.Dropout(dropout, dtype=others, name="output_dropout")
        # As in keras_cnv2.ConvNeXtV2, whose names checkpoints have.
        self.output_dense = keras.layers.Dense(
            num_classes, activation=activation, kernel_initializer=kernel_initializer(), dtype=policy, name="head"
        )
        inputs = backbone.input
        outputs = self.output_dense(self.output_dropout(self.norm(self.pooler(backbone(inputs)))))
        # Not the constructor of KerasHub's ImageClassifier, which builds a head without norm.
        keras_hub.models.Task.__init__(self, inputs=inputs, outputs=outputs, **kwargs)

        self.num_classes = num_classes
        self.pooling = pooling
        self.dropout = dropout
        self.head_dtype = head_dtype

    def get_config(self) -> dict[str, Any]:
        activation, policy = self.activation, self.output_dense.dtype_policy
        is_quantized = isinstance(policy, keras.dtype_policies.QuantizedDTypePolicy)
        given = policy if is_quantized or self.head_dtype is not None else None
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(activation) if callable(activation) else activation,
            "head_dtype": None if given is None else keras.dtype_policies.serialize(given),
        }

    @classmethod
    def from_model(cls, model: ConvNeXtV2, **kwargs: Any) -> Self:
        """Makes the classifier of a model of this package, with its weights and its preprocessing.

        Args:
            model: A `keras_cnv2.ConvNeXtV2` with its top.
            **kwargs: Arguments of the class that differ from the model's own: `preprocessor`, `dropout`, `head_dtype`,
                `name`, `compile`.

        Raises:
            ValueError: If `model` is another model, has no top, or is quantized.
        """
        check_model(model, (ConvNeXtV2,))
        if not model.include_top:
            raise ValueError(
                "A classifier is made of a model with include_top=True; of this one, ConvNeXtV2Backbone.from_model "
                f"makes a backbone. Received: model={model.name!r} with include_top=False"
            )
        own = {
            "preprocessor": ConvNeXtV2ImageClassifierPreprocessor(ConvNeXtV2ImageConverter.from_model(model)),
            "num_classes": model.classes,
            "activation": model.classifier_activation,
        }
        made = cls(ConvNeXtV2Backbone.from_model(model), **{**own, **kwargs})
        load_checkpoint(made, state_dict(model))
        return made
