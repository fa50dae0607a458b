"""End a run early and write its model, plots and metrics, from the newest or the best checkpoint."""

from pathlib import Path

from ..errors import RunError
from ..recipes.detection import Detection
from ..recipes.fields import Finetuning, Pretraining
from ..recipes.segmentation import Segmentation
from ..runs.names import METRICS
from .config import read_config, recipe_of
from .detect import Detect
from .finetune import Finetune
from .pretrain import Pretrain
from .run_options import Outcome, add_device_options, devices_of
from .segment import Segment
from .values import converter

COMMANDS = {Pretraining: Pretrain, Finetuning: Finetune, Segmentation: Segment, Detection: Detect}


def add_arguments(parser):
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--best",
        type=converter(bool),
        nargs="?",
        const=True,
        default=False,
        help="take the checkpoint that validated best instead of the newest",
    )
    add_device_options(parser)


def outcome(args):
    """Runs the command. Returns the `Outcome`."""
    folder = Path(args.run)
    kind, command = _command_of(folder)
    recipe = recipe_of(folder, kind)
    return Outcome(folder, command.run(recipe, folder, devices_of(args), "best" if args.best else "newest"))


def main(args):
    _, command = _command_of(Path(args.run))
    command.show(*outcome(args))


def _command_of(folder):
    """Returns the class of a run's recipe, and the `TrainingRun` that runs it.

    Raises:
        RunError: If the run is already finished, or its kind is unknown.
    """
    if (folder / METRICS).exists():
        raise RunError(f"This run is already finished. Received: {folder}")
    name = read_config(folder)["kind"]
    for kind, command in COMMANDS.items():
        if kind.__name__ == name:
            return kind, command
    raise RunError(f"A run of this kind cannot be finished. Received: {folder}, a run of {name}")
