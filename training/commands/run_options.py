"""Options for a run's folder and its devices, and the result of a command about a run."""

from pathlib import Path
from typing import NamedTuple

from ..distribute.strategies import STRATEGIES, open_devices
from ..errors import RunError
from .values import folder_name


class Outcome(NamedTuple):
    """The result of a command.

    Args:
        folder: Path of the run's folder.
        metrics: The content of metrics.json, a dict; `None` on all workers except the chief.
    """

    folder: Path
    metrics: dict | None


def add_run_options(parser, name):
    """Adds the options for the folder of a run."""
    parser.add_argument("--name", type=folder_name, default=name, help="name of the run (default: %(default)s)")
    parser.add_argument("--runs", default="runs", help="folder of all runs (default: %(default)s)")


def add_device_options(parser):
    """Adds the options for the devices of a run."""
    group = parser.add_argument_group("devices, see docs/distribute.md")
    group.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="one device, all GPUs of this machine, several machines, TPUs, or what is available (default: auto)",
    )
    group.add_argument(
        "--cluster",
        help="the machines: tf_config, slurm[:PORT], kubernetes:job-name=NAME,workers=N[,port=P] or "
        "HOST:PORT,HOST:PORT,...; by default what TF_CONFIG or SLURM says. For tpu its name or local",
    )
    group.add_argument("--task", type=int, help="index of this machine in the list, from 0")


def folder_of(args):
    """Returns the folder of the run that the options name."""
    folder = Path(args.runs) / args.name
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:  # bytes of another encoding, with which TensorFlow would fail much later
        raise RunError(f"A run's folder must have a name in UTF-8. Received: {str(folder)!r}") from error
    return folder


def devices_of(args):
    """Returns the devices that the options name."""
    return open_devices(args.strategy, args.cluster, args.task)
