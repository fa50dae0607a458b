"""python -m training COMMAND; in the wheel, keras-cnv2 COMMAND."""

import contextlib
import importlib
import logging
import os
import sys

from . import packages

COMMANDS = (
    "quickstart",
    "pretrain",
    "finetune",
    "evaluate",
    "segment",
    "detect",
    "finish",
    "analyze",
    "report",
    "recipes",
)


# Name of the program when it is run without installation.
PROG = f"python -m {__package__}"


def main(argv=None, prog=PROG):
    try:
        with packages():
            _main(argv, prog)
    except ImportError as error:
        if error.name and not isinstance(error, ModuleNotFoundError):
            raise  # an installed package failed to import; our own errors say what to install
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:  # during the import of packages
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _main(argv, prog):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported below
    from keras_cnv2.terminal import PrintableFormatter, PrintableParser, printable, printable_lines

    from .distribute.preemption import EXIT_CODE, INTERRUPTED, Interrupted, Preempted
    from .errors import TrainingError

    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(levelname)s: %(message)s"))
    parser = PrintableParser(prog=prog, description="Train ConvNeXt V2.")
    commands = parser.add_subparsers(dest="command", required=True)
    argv = sys.argv[1:] if argv is None else argv
    # Other commands are imported only to be listed.
    for name in [argv[0]] if argv and argv[0] in COMMANDS else COMMANDS:
        module = importlib.import_module(f".commands.{name}", __package__)
        summary = module.__doc__.split("\n\n")[0]
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    args, unknown = parser.parse_known_args(argv)
    if unknown:  # reported by the command, to print its own usage
        commands.choices[args.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    logging.basicConfig(handlers=[handler])
    try:
        args.main(args)
    except BrokenPipeError:  # the reader of our output has ended
        sys.exit(1)
    except (ValueError, OSError, TrainingError) as error:
        sys.exit(f"error: {printable_lines(error)}")
    except Preempted:
        print("ended by SIGTERM; the same command goes on from here", file=sys.stderr)
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt as end:
        saved, run = ("its state is saved", end.run) if isinstance(end, Interrupted) else ("", None)
        print(
            f"interrupted, {saved or 'a run has its last checkpoint'}: the same command goes on from there; "
            f"{prog} finish {printable(run or 'FOLDER')} writes the model as it is and ends the run",
            file=sys.stderr,
        )
        sys.exit(INTERRUPTED)


def process(argv=None, prog=PROG):
    """Runs `main` and, if it fails, ends the process at once, without Python's cleanup.

    At cleanup, Python waits for TensorFlow, and TensorFlow may wait forever for threads of a dataset or for other
    workers; this happened with a worker whose peer had died. No file is ever in an incomplete state.
    """
    try:
        main(argv, prog)
    except SystemExit as end:
        if not end.code:
            raise
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError):  # there is no stream, or its reader has closed it
                stream.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    process()
