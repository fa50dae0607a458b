"""Pre-train an encoder with FCMAE on images without labels."""

from ..evaluation.reconstructions import Reconstruct
from ..models.build import new_fcmae
from ..recipes.images import PRETRAINING
from ..runs.names import MODELS
from .training_run import TrainingRun

EXAMPLES = 6


class Pretrain(TrainingRun):
    """A run of pre-training. Writes reconstructions.png and the folder reconstructions."""

    name, rows, default = "pretrain", PRETRAINING, "images"
    model_file = MODELS["Pretraining"]
    labelled = False
    first = last = ("loss",)

    def new_model(self, weights):
        return new_fcmae(self.recipe, self.source.channels, weights)

    def fit_arguments(self):
        if not self.devices.is_chief:
            return {}
        self.reconstruct = Reconstruct(self.source.examples(self.recipe, EXAMPLES), self.folder, self.recipe)
        return {"callbacks": [self.reconstruct]}

    def draw(self, progress):
        self.reconstruct.catch_up(self.model, progress)

    @classmethod
    def summary(cls, metrics):
        return f"loss {metrics['first_loss']:.4f} -> {metrics['loss']:.4f}, " if "loss" in metrics else ""


add_arguments, outcome, main, run = Pretrain.add_arguments, Pretrain.outcome, Pretrain.main, Pretrain.run
