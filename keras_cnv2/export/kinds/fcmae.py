"""FCMAE: features of whole images, and the reconstruction of masked patches."""

import keras
import tensorflow as tf

from keras_cnv2.export.images import images_of
from keras_cnv2.export.kinds.encoder import check_no_resize, features_function
from keras_cnv2.export.labels import labels_of
from keras_cnv2.fcmae.masking import random_hidden
from keras_cnv2.models.heads import features_of

# Random seed of the masks that `serving_default` applies.
SEED = 0


class ExportedFCMAE:
    """A `Kind`: an `FCMAE`. It is never folded, because its decoder needs the unfolded encoder."""

    def __init__(self, model, options):
        self.model = model
        self.labels = labels_of(model, options.class_names)
        self.images = images_of(model.backbone, options, model.image_size)
        check_no_resize(options)
        self.pictures = self.images.shape[1:3], None
        self.encoder = keras.Model(model.backbone.input, features_of(model.backbone))

    def functions(self, names):
        model, (features, images) = self.model, features_function(self.encoder, self.images)
        hidden = tf.TensorSpec((None, *model.grid), tf.float32, "hidden")

        def paint(images, hidden):
            images = self.images.checked(images)
            return model.paint(images, model(images, hidden=hidden, training=False))

        def reconstruct(images, hidden):
            visible = tf.reduce_sum(1 - hidden, (1, 2))
            fits = tf.debugging.assert_equal(
                visible, float(model.visible), f"Masks leave {model.visible} patches of each image visible"
            )
            with tf.control_dependencies([fits]):
                return {"reconstruction": paint(images, hidden)}

        def with_masks(images):
            hidden = random_hidden(tf.shape(images)[0], *model.grid, model.visible, SEED)
            return {"reconstruction": paint(images, hidden), "hidden": hidden}

        return {
            "features": (features, images),
            "reconstruct": (reconstruct, [*images, hidden]),
            "serving_default": (with_masks, images),
        }

    def check(self, served, images):
        hidden = served.outputs("serving_default", {}, images=images)["hidden"].numpy()
        expected = {"reconstruction": self.model.reconstruct(images, hidden)}
        served.outputs("serving_default", expected, images=images)
        served.outputs("reconstruct", expected, images=images, hidden=hidden)
        served.outputs("features", self.encoder(images), images=images)
