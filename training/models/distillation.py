"""Distillation: a classifier learns from labels and from the logits of a teacher. Imports no TensorFlow.

`keras.distillation` has a loss of this kind and a model around student and teacher. The loss is here because it must
have one value for each image, for weights, padding and replicas, and the lowest supported Keras has none. There is no
model around the student: checkpoints, averages and the optimizer's learning rates go by the student's own variables.
"""

import keras
import numpy as np
from keras import ops

import keras_cnv2

# The smallest probability whose logarithm is taken: the smallest normal number, since zero has none.
TINY = float(np.finfo("float32").tiny)


class Teacher:
    """A trained classifier as a function from images to logits. Gradients stop here.

    It is not a layer, so that Keras does not track its weights as those of the student.

    Args:
        outputs: Function from images `(N, H, W, channels)` in 0..255, float32, to the classifier's values
            `(N, classes)`.
        are_probabilities: Whether the values are probabilities of a softmax, instead of logits.
        columns: Indices among the teacher's classes, one for each class of the student.
        sides: Height and width of the teacher's images, `None` where they are variable. Other images are resized.
        supports_jit: Whether XLA can compile it.

    Call arguments:
        images: Tensor `(N, height, width, channels)` in 0..255, any dtype.

    Returns:
        A float32 tensor `(N, len(columns))`.
    """

    def __init__(self, outputs, are_probabilities, columns, sides=(None, None), supports_jit=True):
        self.outputs = outputs
        self.are_probabilities = are_probabilities
        self.columns = [*columns]
        self.sides = sides
        self.supports_jit = supports_jit

    def __call__(self, images):
        values = ops.cast(self.outputs(self._resized(ops.cast(images, "float32"))), "float32")
        if self.are_probabilities:
            values = ops.log(ops.maximum(values, TINY))  # logits but for a constant, which no softmax sees
        if self.columns != [*range(values.shape[-1])]:
            values = ops.take(values, np.array(self.columns, "int32"), axis=-1)
        return ops.stop_gradient(values)

    def _resized(self, images):
        given = images.shape[1:3]
        size = tuple(side or own for side, own in zip(self.sides, given))
        if size == tuple(given):
            return images
        shrinks = any(side < own for side, own in zip(size, given))
        options = {"interpolation": "bilinear", "data_format": "channels_last"}
        return ops.image.resize(images, size, antialias=shrinks, **options)


class DistillationLoss(keras.losses.Loss):
    """Cross-entropy with the labels, and Kullback-Leibler divergence from a teacher's softened probabilities.

    `(1 - share) * CE(labels, student) + share * T^2 * KL(softmax(teacher / T) || softmax(student / T))`, where `T` is
    the temperature. The factor `T^2` keeps the gradients of the second part at the scale of the first part's.

    Args:
        share: Float in `[0, 1]`, the weight of the teacher's part.
        temperature: Positive float.

    Call arguments:
        y_true: Pair of the labels `(N, classes)`, each row a distribution, and the teacher's logits `(N, classes)`.
        y_pred: The student's logits `(N, classes)`.
        sample_weight: As in any Keras loss.

    Source: Distilling the Knowledge in a Neural Network (arXiv 1503.02531), section 2.
    """

    def __init__(self, share, temperature, name="distillation", **kwargs):
        super().__init__(name=name, **kwargs)
        self.share = share
        self.temperature = temperature

    def call(self, y_true, y_pred):
        return self.parts(y_true, y_pred)["loss"]

    def parts(self, y_true, y_pred):
        """Returns a dict of "loss", "label_loss" and "teacher_loss", each `(N,)`; the last two without their weight."""
        labels, teacher = y_true
        label_loss = keras.losses.categorical_crossentropy(labels, y_pred, from_logits=True)
        theirs, ours = (ops.log_softmax(logits / self.temperature, axis=-1) for logits in (teacher, y_pred))
        teacher_loss = self.temperature**2 * ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1)
        loss = (1 - self.share) * label_loss + self.share * teacher_loss
        return {"loss": loss, "label_loss": label_loss, "teacher_loss": teacher_loss}


class Student(keras_cnv2.ConvNeXtV2):
    """A classifier with logits that is trained with a `DistillationLoss`; compile it without a loss.

    It has the variables of a `keras_cnv2.ConvNeXtV2`, to which its checkpoints belong. Its metrics include the parts of
    the loss, in which samples of weight 0 do not count. In evaluation the teacher is asked as well.

    Args:
        teacher: `Teacher`.
        distillation: `DistillationLoss`.
        *args, **kwargs: As in `keras_cnv2.ConvNeXtV2`.
    """

    def __init__(self, *args, teacher, distillation, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher = teacher
        self.distillation = distillation
        self.supports_jit = teacher.supports_jit
        self.part_means = [keras.metrics.Mean(name) for name in ("loss", "label_loss", "teacher_loss")]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        y_true = y, self.teacher(x)
        parts = self.distillation.parts(y_true, y_pred)
        for mean in self.part_means:
            mean.update_state(parts[mean.name], sample_weight)
        return self.distillation(y_true, y_pred, sample_weight)
