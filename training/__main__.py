"""python -m training COMMAND"""

import argparse
import logging
import os
import sys


def main(argv=None):
    try:
        _main(argv)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            sys.exit(f'error: {error}; what training needs: pip install "keras_cnv2[train]"')
        if error.name:  # Python's own, of a package that is there; ours say what to install
            raise
        sys.exit(f"error: {error}")


def _main(argv):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before the import of TensorFlow, below
    from .commands import analyze, detect, evaluate, finetune, pretrain, quickstart, recipes, report, segment
    from .distribute.preemption import EXIT_CODE, Preempted
    from .errors import TrainingError

    parser = argparse.ArgumentParser(prog="python -m training", description="Train ConvNeXt V2.")
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (quickstart, pretrain, finetune, evaluate, segment, detect, analyze, report, recipes):
        name, summary = module.__name__.rpartition(".")[2], module.__doc__.split("\n\n")[0]
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        args.main(args)
    except (ValueError, OSError, TrainingError) as error:
        sys.exit(f"error: {error}")
    except Preempted:
        print("ended by SIGTERM; the same command goes on from here", file=sys.stderr)
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        sys.exit("interrupted; a run goes on from its last checkpoint with the same command")


def process(argv=None):
    """Runs `main` and, if it fails, ends the process without tidying up.

    The threads of a dataset and the peers of a worker may be in the middle of something then, and Python's end waits
    for TensorFlow, which waits for them: seen with a worker whose peer had died. All files are whole at any time.
    """
    try:
        main(argv)
    except SystemExit as end:
        if not end.code:
            raise
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    process()
