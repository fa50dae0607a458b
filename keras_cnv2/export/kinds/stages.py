"""What differs between exported detectors: how images become predictions, and what is compared before suppression."""

import keras
import tensorflow as tf

from keras_cnv2.detection.two_stage.model import MaskRCNN
from keras_cnv2.folding.fold import fold


def stages_of(model):
    """Returns the `OneStage` or `TwoStages` of a RetinaNet or Mask R-CNN."""
    return TwoStages(model) if isinstance(model, MaskRCNN) else OneStage(model)


class OneStage:
    """A RetinaNet: boxes and classes are predicted from anchors, and nothing is decided before suppression."""

    def __init__(self, model):
        self.model = model

    def predictor(self, folds):
        """Returns a function from images to the predictions of the model, which is folded if `folds` is true."""
        graph = fold(keras.Model(self.model.inputs, self.model.outputs)) if folds else self.model

        def predict(images):
            box, classification = keras.tree.flatten(graph({"images": images}))
            return {"box": box, "classification": classification}

        return predict

    def dense(self, predictions, shape):
        """Returns the outputs of the signature `dense`."""
        return self.model.dense(predictions, shape)

    def expected(self, received, predictions, shape):
        """Returns what the outputs of `dense` must be.

        Args:
            received: The outputs of `dense`.
            predictions: The predictions of the model.
            shape: Shape of the images.
        """
        return self.model.dense(predictions, shape)


class TwoStages:
    """A Mask R-CNN or Faster R-CNN. Its first stage selects proposals, for which `dense` has outputs of their own."""

    def __init__(self, model):
        self.model = model

    def predictor(self, folds):
        features = fold(self.model.features) if folds else self.model.features
        return lambda images: self.model.first_stage(features(images), images.shape)

    def dense(self, predictions, shape):
        of_anchors = {name: tf.concat(predictions[name], axis=1) for name in ("objectness", "deltas")}
        return {**self.model.dense(predictions, shape), "proposals": predictions["boxes"], **of_anchors}

    def expected(self, received, predictions, shape):
        """As of `OneStage`, with the proposals that follow from the received objectness and deltas.

        Rounding may decide which of two anchors with nearly equal scores becomes a proposal.
        """
        sizes = [*map(len, self.model.anchors(shape))]
        of_levels = (tf.split(received[name], sizes, axis=1) for name in ("objectness", "deltas"))
        proposals, is_proposal = self.model.proposals(*of_levels, shape)
        return self.dense({**predictions, "boxes": received["proposals"], "is_proposal": is_proposal}, shape) | {
            "proposals": proposals
        }
