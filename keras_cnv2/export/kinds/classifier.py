"""Classifiers, and models of the user's own on one encoder: answers to images and to image files."""

import keras
import numpy as np
import tensorflow as tf

from keras_cnv2.errors import ExportError
from keras_cnv2.export.check import sample_images
from keras_cnv2.export.decoder import ENCODED, decoder
from keras_cnv2.export.images import images_of
from keras_cnv2.export.labels import labels_of
from keras_cnv2.export.outputs import with_named_outputs
from keras_cnv2.folding.fold import fold
from keras_cnv2.images.pictures import to_square
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.heads import as_taken, classes_of, features_of, named_outputs
from keras_cnv2.models.pictures import LUMA, PICTURE_CHANNELS, load_image_for, pictures_of, to_input


class ExportedClassifier:
    """A `Kind`: a `ConvNeXtV2` with its top, or a functional or sequential model of the user's own on an encoder."""

    def __init__(self, model, options):
        self.model, self.options = model, options
        has_rows = classes_of(model) is not None
        if isinstance(model, ConvNeXtV2):
            features, answers = features_of(model), named_outputs(model)
            self.graph = keras.Model(model.input, {**features, **answers}, name=model.name)
        else:  # of the user's own models, the layers are not known
            self.graph = with_named_outputs(model)
            features, answers = {}, self.graph.output
        self.features, self.answers = [*features], [*answers]
        self.ranks_classes = has_rows and "probabilities" in answers
        self.images = images_of(model, options)
        self.labels = labels_of(model, options.class_names)
        self.pictures = pictures_of(model, self.images.shape[1:3], options.resize)

    def functions(self, names):
        graph = fold(self.graph) if self.options.fold else self.graph
        inputs = [tf.TensorSpec(self.images.shape, self.images.dtype, "images")]

        def features(images):
            outputs = graph(self.images.checked(images))
            return {name: tf.cast(outputs[name], tf.float32) for name in self.features}

        def serve(images):
            return self._answer(graph(self.images.checked(images)), names)

        found = {"features": (features, inputs)} if self.features else {}
        found["serving_default"] = (serve, inputs)
        (size, _), resize = self.pictures
        channels = self.images.shape[-1]
        if resize and channels in PICTURE_CHANNELS:

            def to_image(pixels):
                image = to_square(pixels, size, resize)
                return (image if channels == 3 else tf.linalg.matmul(image, tf.constant(LUMA)[:, None]),)

            decode = decoder(to_image, (tf.zeros((size, size, channels)),), size, self.options.reading)

            def serve_jpeg(encoded):
                images, decoded = decode(encoded)
                return self._answer(graph(as_taken(self.model, images)), names, decoded)

            found["serve_jpeg"] = (serve_jpeg, [ENCODED])
        return found

    def _answer(self, outputs, names, decoded=None):
        """Turns the outputs of the model into those of a signature, empty for image files that were not decoded."""
        answer = {name: tf.cast(outputs[name], tf.float32) for name in self.answers}
        if self.ranks_classes:
            scores, ids = tf.math.top_k(answer["probabilities"], min(self.options.top, len(self.labels)))
            answer |= {"scores": scores, "class_ids": ids}
        if decoded is not None:
            for name, values in answer.items():
                nothing = tf.cast(-1 if name == "class_ids" else 0, values.dtype)
                is_there = tf.reshape(decoded, [-1] + [1] * (values.shape.rank - 1))
                answer[name] = tf.where(is_there, values, nothing)
            answer["decoded"] = decoded
        if self.ranks_classes:
            answer["classes"] = names.lookup(tf.cast(answer["class_ids"], tf.int64))
        return answer

    def check(self, served, images):
        expected = self.graph(images, training=False)
        if self.features:
            served.outputs("features", {name: expected[name] for name in self.features}, images=images)
        answers = served.outputs("serving_default", {name: expected[name] for name in self.answers}, images=images)
        if self.ranks_classes:
            self._check_classes(answers)
        if "serve_jpeg" in served.signatures:
            self._check_pictures(served)

    def _check_classes(self, answers):
        """Raises an `ExportError` unless the top classes, their names and scores follow from the probabilities."""
        for probabilities, ids, classes, scores in zip(
            *(answers[name].numpy() for name in ("probabilities", "class_ids", "classes", "scores"))
        ):
            best = np.argsort(-probabilities, kind="stable")[: len(ids)]
            named = [name.decode() for name in classes]
            expected = [self.labels[index] for index in best]
            if [*ids] != [*best] or named != expected or [*scores] != [*probabilities[best]]:
                raise ExportError(f"serving_default: classes do not follow from probabilities. Received: {named}")

    def _check_pictures(self, served):
        """Checks `serve_jpeg` on two encoded images with invalid bytes between them."""
        (size, _), resize = self.pictures
        pixels = sample_images((2, size, 2 * size, 3)).astype("uint8")
        encoded = [tf.io.encode_png(picture).numpy() for picture in pixels]
        images = np.stack([load_image_for(self.model, picture, size, resize) for picture in encoded])
        outputs = self.graph(to_input(self.model, images), training=False)
        both = {name: np.asarray(outputs[name], "float32") for name in self.answers}
        expected = {name: np.stack([first, 0 * first, second]) for name, (first, second) in both.items()}
        expected["decoded"] = [True, False, True]
        served.outputs("serve_jpeg", expected, encoded=[encoded[0], b"no picture", encoded[1]])
