"""Train a classifier from an FCMAE run, from published weights, from a file, or from scratch."""

import logging

import keras

from keras_cnv2.models.pictures import PICTURE_CHANNELS

from ..data.images.augment import Augmentation
from ..drawing.runs import confusion_matrix, predictions
from ..evaluation import tables
from ..evaluation.classification import evaluate
from ..evaluation.predictions import best_and_worst
from ..models.build import described_classifier, new_classifier, with_softmax
from ..recipes.images import FINETUNING
from ..runs.names import MODELS
from .teacher import open_teacher
from .training_run import TrainingRun

logger = logging.getLogger(__name__)


class Finetune(TrainingRun):
    """A run of supervised training. Writes confusion_matrix.png and predictions.png."""

    name, rows, default = "finetune", FINETUNING, "images"
    model_file = MODELS["Finetuning"]
    monitor = "val_accuracy"
    curves = ("loss", "accuracy")
    last = ("accuracy",)
    scored, table = "top1", staticmethod(tables.classification)
    teacher = None

    def prepare(self):
        if self.recipe.teacher:
            self.teacher = self._open_teacher()

    def new_model(self, weights):
        model = new_classifier(self.recipe, self.source.channels, self.source.class_names, weights, self.teacher)
        if self.teacher and self.devices.strategy:
            # Again, in the scope of the strategy: each replica gets its copy. Last, since models draw random numbers.
            model.teacher = self._open_teacher(tries=False)
        return model

    def _open_teacher(self, tries=True):
        return open_teacher(self.recipe, self.source.channels, self.source.class_names, tries)

    def fit_arguments(self):
        classes, magnitude = len(self.source.class_names), _rand_augment(self.recipe, self.source.channels)
        of_labels = {"loss": keras.losses.CategoricalCrossentropy(from_logits=True), "metrics": classifier_metrics}
        return {
            "augmentation": Augmentation.of(self.recipe, classes, rand_augment=magnitude),
            "described": described_classifier(self.model),
            # A `Student` has a loss of its own, and means of it.
            **({"metrics": lambda: ["accuracy"]} if self.teacher else of_labels),
        }

    def finished(self, model):
        return with_softmax(model, self.recipe)

    def evaluate(self):
        scores, self.matrix = evaluate(self.trained, self.source, self.recipe, self.recipe.step_batch, self.devices)
        return scores

    def draw_scores(self):
        if self.matrix is not None:
            title = f"top-1 accuracy {self.scores['top1']:.1%}, {self.scores['images']} images"
            confusion_matrix(self.folder / "confusion_matrix.png", self.matrix, self.source.class_names, title)
        batch_size = self.devices.part_of(self.recipe.step_batch)
        ranked = best_and_worst(self.trained, self.source, self.recipe, batch_size)
        predictions(self.folder / "predictions.png", ranked)


def classifier_metrics():
    """Returns accuracy and loss metrics. Keras's own loss would also count the padding in the last validation batch."""
    return [keras.metrics.CategoricalCrossentropy(name="loss", from_logits=True), "accuracy"]


def _rand_augment(recipe, channels):
    """Returns the recipe's magnitude of RandAugment; 0, with a warning, for channels that RandAugment cannot take."""
    if recipe.rand_augment and channels not in PICTURE_CHANNELS:
        logger.warning("images of %d channels: training without RandAugment, which needs 1 or 3", channels)
        return 0.0
    return recipe.rand_augment


add_arguments, outcome, main, run = Finetune.add_arguments, Finetune.outcome, Finetune.main, Finetune.run
