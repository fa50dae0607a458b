"""python -m training COMMAND"""

import argparse
import os
import sys


def main(argv=None):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before the import of TensorFlow, below
    from training import quickstart

    parser = argparse.ArgumentParser(prog="python -m training", description="Train ConvNeXt V2.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("quickstart", help=quickstart.__doc__)
    quickstart.add_arguments(command)
    command.set_defaults(main=quickstart.main)
    args = parser.parse_args(argv)
    try:
        args.main(args)
    except FileExistsError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted, nothing was written")


if __name__ == "__main__":
    main()
