"""Train and evaluate semantic segmentation, from an encoder's weights or from scratch."""

import keras_cnv2
from keras_cnv2.segmentation import ConfusionMatrix, PixelCrossentropy

from ..drawing.segmentation import iou_chart, segmentations
from ..evaluation import tables
from ..models.build import new_backbone, new_segmenter
from ..recipes.segmentation import SEGMENTATION
from ..runs.names import MODELS
from .training_run import TrainingRun

EXAMPLES = 6


class Segment(TrainingRun):
    """A run of semantic segmentation. Writes the folder saved_model, overlays.png and iou.png."""

    name, rows, default = "segment", SEGMENTATION, "scenes"
    model_file = MODELS["Segmentation"]
    monitor = "val_mean_iou"
    curves = ("loss", "mean_iou")
    scored, table = "iou", staticmethod(tables.segmentation)

    # Imported in functions because they need TensorFlow, and other commands run without it: modules on scenes.

    def open_data(self):
        from ..data.scenes.sources import open_scenes

        return open_scenes(self.recipe)

    def new_model(self, weights):
        return new_segmenter(self.recipe, new_backbone(self.recipe, weights), self.source.class_names)

    def fit_arguments(self):
        classes, ignored = len(self.source.class_names), self.recipe.ignore_label
        return {"loss": PixelCrossentropy(ignored), "metrics": lambda: [ConfusionMatrix(classes, ignored)]}

    def evaluate(self):
        from ..evaluation.segmentation import evaluate

        return evaluate(self.trained, self.source, self.recipe, self.devices)

    def export(self):
        keras_cnv2.export_saved_model(self.trained, self.folder / "saved_model", overwrite=True)

    def draw_scores(self):
        from ..evaluation.segmentation import examples

        shown = examples(self.trained, self.source, self.recipe, EXAMPLES)
        iou_chart(self.folder / "iou.png", self.scores["iou"], self.scores["mean_iou"])
        segmentations(self.folder / "overlays.png", *shown, self.source.class_names)


add_arguments, outcome, main, run = Segment.add_arguments, Segment.outcome, Segment.main, Segment.run
