"""Model, optimizer, `fit`. Imports no TensorFlow: it runs on any backend of Keras."""

import keras

import keras_cnv2


def new_fcmae(recipe, channels, seed):
    """The `keras_cnv2.FCMAE` that a recipe pre-trains, for images of `channels`, with masks drawn from `seed`."""
    backbone = keras_cnv2.ConvNeXtV2Backbone(
        depths=recipe.depths,
        dims=recipe.dims,
        stem_stride=recipe.stem_stride,
        input_shape=(None, None, channels),
        name="backbone",
    )
    return keras_cnv2.FCMAE(
        backbone, recipe.image_size, mask_ratio=recipe.mask_ratio, decoder_dim=recipe.decoder_dim, seed=seed
    )


def new_classifier(recipe, fcmae, class_names):
    """The `keras_cnv2.ConvNeXtV2` that a recipe fine-tunes: the encoder's weights are those of `fcmae`."""
    classifier = keras_cnv2.ConvNeXtV2(
        recipe.depths,
        recipe.dims,
        stem_stride=recipe.stem_stride,
        input_shape=(recipe.image_size, recipe.image_size, fcmae.channels),
        classes=len(class_names),
        class_names=class_names,
        resize=recipe.resize,
        drop_path_rate=recipe.drop_path,
        name="classifier",
    )
    keras_cnv2.load_checkpoint(classifier, keras_cnv2.state_dict(fcmae))
    return classifier


def fit(model, dataset, schedule, callbacks=(), **compile_arguments):
    """Compiles and fits a model.

    Args:
        model: The model.
        dataset: Its batches, of known length; a new order each epoch is the dataset's affair.
        schedule: The `training.recipes.Schedule`.
        callbacks: Keras callbacks; they do the talking.
        **compile_arguments: Loss and metrics, for `model.compile`.

    Returns:
        The metrics of each epoch: name -> list of floats.
    """
    model.compile(optimizer=adamw(schedule, model, len(dataset)), **compile_arguments)
    history = model.fit(dataset, epochs=schedule.epochs, shuffle=False, callbacks=[*callbacks], verbose=0)
    return history.history


def adamw(schedule, model, steps_per_epoch):
    """The optimizer of a schedule: warm-up and cosine at every step, no weight decay on weights of rank 1."""
    warmup = schedule.warmup_epochs * steps_per_epoch
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else schedule.lr,
        decay_steps=schedule.epochs * steps_per_epoch - warmup,
        warmup_target=schedule.lr if warmup else None,
        warmup_steps=warmup,
    )
    beta_1, beta_2 = schedule.betas
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=schedule.weight_decay, beta_1=beta_1, beta_2=beta_2)
    optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if len(v.shape) == 1])
    return optimizer
