"""Model, optimizer, `fit`. Imports no TensorFlow: it runs on any backend of Keras."""

import keras

import keras_cnv2


def adamw(schedule, model, steps_per_epoch):
    """The optimizer of a schedule: warm-up and cosine at every step, no weight decay on weights of rank 1."""
    warmup = schedule.warmup_epochs * steps_per_epoch
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else schedule.lr,
        decay_steps=max(1, schedule.epochs * steps_per_epoch - warmup),
        warmup_target=schedule.lr if warmup else None,
        warmup_steps=warmup,
    )
    beta_1, beta_2 = schedule.betas
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=schedule.weight_decay, beta_1=beta_1, beta_2=beta_2)
    optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if len(v.shape) == 1])
    return optimizer


def pretrain(recipe, dataset, channels, seed, callbacks=()):
    """Pre-trains a new FCMAE on a dataset of batches of images.

    Returns:
        The `keras_cnv2.FCMAE` and its loss per epoch, a list of floats.
    """
    backbone = keras_cnv2.ConvNeXtV2Backbone(
        depths=recipe.depths,
        dims=recipe.dims,
        stem_stride=recipe.stem_stride,
        input_shape=(None, None, channels),
        name="backbone",
    )
    fcmae = keras_cnv2.FCMAE(
        backbone, recipe.image_size, mask_ratio=recipe.mask_ratio, decoder_dim=recipe.decoder_dim, seed=seed
    )
    fcmae.compile(optimizer=adamw(recipe.pretraining, fcmae, len(dataset)))
    history = fcmae.fit(dataset, epochs=recipe.pretraining.epochs, callbacks=list(callbacks), verbose=0)
    return fcmae, history.history["loss"]


def finetune(recipe, fcmae, dataset, class_names, callbacks=()):
    """Fine-tunes a new classifier that starts from the encoder of `fcmae`, on a dataset of (images, labels).

    Returns:
        The `keras_cnv2.ConvNeXtV2` and its metrics per epoch, a dict of lists of floats.
    """
    classifier = keras_cnv2.ConvNeXtV2(
        recipe.depths,
        recipe.dims,
        stem_stride=recipe.stem_stride,
        input_shape=(recipe.image_size, recipe.image_size, fcmae.channels),
        classes=len(class_names),
        class_names=class_names,
        drop_path_rate=recipe.drop_path,
        name="classifier",
    )
    keras_cnv2.load_checkpoint(classifier, keras_cnv2.state_dict(fcmae))
    classifier.compile(
        optimizer=adamw(recipe.finetuning, classifier, len(dataset)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = classifier.fit(dataset, epochs=recipe.finetuning.epochs, callbacks=list(callbacks), verbose=0)
    return classifier, history.history
