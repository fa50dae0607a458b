"""Train and evaluate object detection, from an encoder's weights or from scratch."""

import keras_cnv2
from keras_cnv2.detection import Detector
from keras_cnv2.detection.retinanet import require_keras_cv

from ..drawing.detection import average_precisions, detections
from ..evaluation import tables
from ..models.build import new_backbone, new_detector
from ..recipes.detection import DETECTION
from ..runs.names import MODELS
from .training_run import TrainingRun

EXAMPLES = 6

# Average precision needs all detections, down to low scores.
LEAST_SCORE = 0.001


class Detect(TrainingRun):
    """A run of object detection, also with masks.

    Writes the folder saved_model, detections.png and average_precisions.png.
    """

    name, rows, default = "detect", DETECTION, "objects"
    model_file = MODELS["Detection"]
    monitor = "val_loss"
    scored, table = "AP", staticmethod(tables.detection)

    def open_data(self):
        """Opens the data. Checks here, not after the training, that all packages are installed."""
        # Imported here because they need TensorFlow, and other commands run without it.
        from ..data.boxes.sources import open_boxes
        from ..evaluation.detection import require_pycocotools

        if self.recipe.head == "retinanet":
            require_keras_cv()
        source = open_boxes(self.recipe)
        if source.validation_size:
            require_pycocotools()
        return source

    def new_model(self, weights):
        return new_detector(self.recipe, new_backbone(self.recipe, weights), self.source.class_names)

    def fit_arguments(self):
        if self.recipe.head != "retinanet":
            return {}
        return {"box_loss": "smoothl1", "classification_loss": "focal"}

    @property
    def curves(self):
        if self.recipe.head == "retinanet":
            return "loss", "box_loss", "classification_loss"
        return "loss", *(tracker.name for tracker in self.model.trackers)

    def evaluate(self):
        from ..evaluation.detection import evaluate

        return evaluate(self.detector(LEAST_SCORE), self.source, self.recipe, self.recipe.step_batch, self.devices)

    def detector(self, score_threshold):
        """Returns the trained model with the recipe's suppression of overlapping detections."""
        return Detector(self.trained, self.recipe.nms, score_threshold, self.recipe.iou_threshold)

    def export(self):
        detector, path = self.detector(self.recipe.score_threshold), self.folder / "saved_model"
        keras_cnv2.export_saved_model(detector, path, image_size=self.recipe.image_size, overwrite=True)

    def draw_scores(self):
        images, truths = self.source.examples(self.recipe, min(EXAMPLES, self.source.validation_size))
        found = self.detector(self.recipe.score_threshold).predict(images, verbose=0)
        detections(self.folder / "detections.png", images, truths, found, self.source.class_names)
        scores = self.scores
        named = {"box AP": scores["AP"], "mask AP": scores["mask_AP"]} if self.recipe.masks else {"AP": scores["AP"]}
        title = ", ".join(f"{name}: {tables.percent(value, 'no objects')}" for name, value in named.items())
        average_precisions(self.folder / "average_precisions.png", scores["classes"], title, scores.get("mask_classes"))


add_arguments, outcome, main, run = Detect.add_arguments, Detect.outcome, Detect.main, Detect.run
