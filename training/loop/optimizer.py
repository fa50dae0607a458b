"""Makes a recipe's optimizer. Imports no TensorFlow."""

import keras_cnv2
from keras_cnv2.optimizers.loss_scale import LossScaleOptimizer

OPTIMIZERS = {"adamw": keras_cnv2.LayerDecayAdamW, "muon": keras_cnv2.LayerDecayMuon}


def new_optimizer(recipe, steps_per_epoch):
    """Returns a recipe's optimizer. Its schedule counts optimizer steps: `recipe.accumulation` training steps each."""
    optimizer = OPTIMIZERS[recipe.optimizer](
        recipe.learning_rate(steps_per_epoch // recipe.accumulation),
        weight_decay=recipe.weight_decay,
        beta_1=recipe.betas[0],
        beta_2=recipe.betas[1],
        layer_decay=recipe.layer_decay,
        layer_decay_type=recipe.layer_decay_type,
        global_clipnorm=recipe.clip_norm,
        use_ema=recipe.ema is not None,
        ema_momentum=recipe.ema or 0.0,
        gradient_accumulation_steps=recipe.accumulation if recipe.accumulation > 1 else None,
    )
    return LossScaleOptimizer(optimizer) if recipe.dtype == "mixed_float16" else optimizer
