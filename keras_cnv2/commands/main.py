"""The command `keras-cnv2`."""

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import keras_cnv2
from keras_cnv2.checkpoints.bundled import checkout_file
from keras_cnv2.checkpoints.hub import is_cached
from keras_cnv2.checkpoints.metadata import metadata_of
from keras_cnv2.checkpoints.named_arrays import NAMINGS
from keras_cnv2.checkpoints.registry import CHECKPOINTS, find_checkpoint
from keras_cnv2.checkpoints.source import fetch_weights, is_source, open_weights
from keras_cnv2.checkpoints.translate import translation_of
from keras_cnv2.checkpoints.write import save_checkpoint
from keras_cnv2.commands import boxes
from keras_cnv2.commands import export as export_command
from keras_cnv2.commands.predict import (
    TOP,
    add_reading_options,
    check_classifier,
    pictures_at,
    positive,
    predict,
    read_class_names,
)
from keras_cnv2.commands.verify import TOLERANCE, verify
from keras_cnv2.detection.detector import is_detector
from keras_cnv2.files import check_target, replacing
from keras_cnv2.images.pictures import Reading, load_image
from keras_cnv2.models.heads import kind_of
from keras_cnv2.pretrained.push import push
from keras_cnv2.restore import read_architecture, restore_model
from keras_cnv2.sizes import SIZES
from keras_cnv2.terminal import PrintableFormatter, PrintableParser, printable, printable_lines

WEIGHTS = "path of a file or of a run, full name of a published checkpoint (see `list`), or tag of one"

# JSON key of one value, for each kind of output.
SINGULAR = {"probabilities": "probability", "logits": "logit", "scores": "score"}


def main(argv=None):
    """Runs the command.

    Args:
        argv: List of arguments, by default those of the process.

    Returns:
        The exit code.
    """
    # Standard output is for results only. Log lines go to standard error through the handler of last resort, which is
    # used because no logging is configured.
    args = new_parser().parse_args(argv)
    logging.lastResort.setFormatter(PrintableFormatter("%(message)s"))
    try:
        return args.run(args)
    except BrokenPipeError:  # the reader of the output has exited
        raise
    except (ValueError, OSError, ImportError) as error:  # `ImportError`: an optional package is not installed
        print(f"error: {printable_lines(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing half-written is left", file=sys.stderr)
        return 130


def new_parser():
    """Returns the parser of the command line. Its result has the function `run` of the command."""
    parser = PrintableParser(prog="keras-cnv2", description="ConvNeXt V2: weights, predictions, exports.")
    parser.add_argument("--version", action="version", version=f"keras_cnv2 {keras_cnv2.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run):
        added = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        return added

    command("list", run_list)
    added = command("info", run_info)
    added.add_argument("name", help=f"a size, or {WEIGHTS}")

    added = command("predict", run_predict)
    added.add_argument("images", nargs="+", metavar="IMAGE", help="image file, folder of image files, or glob pattern")
    added.add_argument("--model", choices=SIZES, help="size of the model, if --weights is a tag without a size")
    added.add_argument("--weights", help=f"{WEIGHTS} (default: imagenet, of tiny if no --model is given)")
    added.add_argument("--top", type=positive, help=f"classes to name (default: {TOP}); not for detectors")
    added.add_argument(
        "--class-names", metavar="FILE", help="text file, one name per line (default: the model's); not for detectors"
    )
    added.add_argument("--json", action="store_true", help="print one JSON list and nothing else")
    add_reading_options(added)
    boxes.add_arguments(added)

    added = command("convert", run_convert)
    added.add_argument("source", metavar="IN", help=WEIGHTS)
    added.add_argument("target", metavar="OUT", type=Path, help="path of a .safetensors, .keras or .weights.h5 file")
    added.add_argument("--naming", choices=NAMINGS, help="names of weights in .safetensors files (default: official)")
    added.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")

    export_command.add_arguments(command("export", export_command.run_export), WEIGHTS)

    added = command("push", run_push)
    added.add_argument("folder", metavar="FOLDER", type=Path, help="folder of `export --to pretrained`")
    added.add_argument("repository", metavar="OWNER/NAME", help="repository on the hub; a new one is created")
    added.add_argument("--private", action="store_const", const=True, help="make a new repository private")

    added = command("verify", run_verify)
    added.add_argument("image", metavar="IMAGE", help="000000039769.jpg of COCO val2017")
    added.add_argument("--weights", nargs="+", help=f"for each: {WEIGHTS} (default: all that have published logits)")
    added.add_argument("--logits", nargs="+", type=float, help="expected logits (default: the published ones)")
    return parser


def run_list(args):
    """Print the table of sizes and the table of published checkpoints."""
    sizes = [
        (name, _spaced(size.depths), _spaced(size.dims), f"{size.parameters:,}", f"{size.gmacs:g} G")
        for name, size in SIZES.items()
    ]
    checkpoints = [
        (row.name, f"{row.image_size} {row.resize}", row.top1 or "-", row.licence, "yes" if _is_here(row) else "")
        for row in CHECKPOINTS
    ]
    _print_table(("size", "depths", "dims", "parameters", "multiply-accumulates at 224"), sizes)
    print()
    _print_table(("checkpoint", "images", "top-1 %", "licence", "here"), checkpoints)
    return 0


def _is_here(row):
    """Whether a published checkpoint needs no download."""
    return checkout_file(row) is not None or is_cached(row)


def run_info(args):
    """Show details of a size, a published checkpoint or a file of weights."""
    if args.name in SIZES:
        facts = asdict(SIZES[args.name])
        facts["checkpoints"] = ", ".join(row.name for row in CHECKPOINTS if row.size == args.name)
    elif is_source(args.name):
        with open_weights(fetch_weights(args.name)) as contents:
            naming = translation_of(contents).dialect.name
            facts = {"naming": naming, **asdict(read_architecture(contents)), **contents.metadata}
            facts |= _around_encoder(contents.config)
    else:
        row = find_checkpoint(args.name)
        facts = {"name": row.name, **asdict(row), "here": _is_here(row)}
    shown = {name: value for name, value in facts.items() if value is not None}
    _print_table(None, [(name, _short(value)) for name, value in shown.items()])
    return 0


def _around_encoder(config):
    """Returns what a file says of a detector or a segmentation model beside its encoder; nothing of other models."""
    if not isinstance(config, Mapping) or not isinstance(config.get("config"), Mapping):
        return {}
    arguments = config["config"]
    if not {"backbone", "classes"} <= arguments.keys():
        return _around_encoder(arguments.get("model"))  # a `Detector`
    names = ("classes", "class_names", "image_size", "masks")
    return {"model": config.get("class_name"), **{name: arguments.get(name) for name in names}}


def run_predict(args):
    """Name the most probable classes of image files; with a detector, find objects in them."""
    paths = pictures_at(args.images)  # before anything is downloaded
    size = args.model if args.model or args.weights else "tiny"
    model = restore_model(args.weights or "imagenet", size)
    given = {name: getattr(args, name) for name in Reading._fields if getattr(args, name) is not None}
    if is_detector(model):
        return boxes.run(model, paths, args, Reading(**given))
    boxes.check_unused(args)
    check_classifier(model)
    if args.model:
        _check_size(model, args.model)
    names = args.class_names and read_class_names(args.class_names)
    kind = kind_of(model)

    results, failed = [], 0
    for path, predictions in predict(model, paths, args.top or TOP, names, Reading(**given)):
        if isinstance(predictions, Exception):
            failed += 1
            print(f"error: {printable(path)}: {printable(predictions)}", file=sys.stderr)
        elif args.json:
            named = [{"name": name, SINGULAR[kind]: value} for name, value in predictions]
            results.append({"path": str(path), "predictions": named})
        else:
            print(printable(path))
            _print_table(None, [(f"  {_shown(value, kind)}", name) for name, value in predictions])
    if args.json:
        print(json.dumps(results, indent=1))
    return int(failed > 0)


def _shown(value, kind):
    return f"{100 * value:5.1f} %" if kind == "probabilities" else f"{value:9.4g}"


def _check_size(model, name):
    """Raises a `ValueError` unless a model has the size `name`."""
    size = SIZES[name]
    found = getattr(model, "depths", None), getattr(model, "dims", None)
    if found != (size.depths, size.dims):
        raise ValueError(f"The weights have depths {found[0]} and dims {found[1]}. Received: --model {name}")


def run_convert(args):
    """Convert weights to another naming or a Keras file; of a model with your own head, only its encoder."""
    if args.source.endswith(".keras") and args.target.suffix == ".keras":
        raise ValueError(f"IN is a Keras file already. Received: {args.source}")
    check_target(args.target)
    if args.target.exists() and not args.overwrite:
        raise FileExistsError(f"The file exists already; --overwrite replaces it. Received: {args.target}")
    save = _writer(args.target, args.naming)
    model = restore_model(args.source)
    save(model)
    if args.target.suffix == ".h5" and (lost := metadata_of(model)):
        print(f"without {', '.join(lost)}, which .weights.h5 files cannot hold", file=sys.stderr)
    print(printable(args.target))
    return 0


def _writer(target, naming):
    """Returns a function that writes a model to the path `target`."""

    def save_keras(model):
        with replacing(target) as temporary:
            (model.save if target.suffix == ".keras" else model.save_weights)(temporary)

    if target.suffix == ".safetensors":
        return lambda model: save_checkpoint(model, target, naming or "official")
    if naming:
        raise ValueError(f"--naming is for .safetensors: Keras files have Keras's names. Received: {target}")
    if target.name.endswith((".keras", ".weights.h5")):
        return save_keras
    raise ValueError(f"OUT ends in .safetensors, .keras or .weights.h5. Received: {target}")


def run_push(args):
    """Upload a folder to the Hugging Face hub, as one commit, with the token of the hub's client."""
    print(printable(push(args.folder, args.repository, args.private)))
    return 0


def run_verify(args):
    """Compare the logits of checkpoints on an image with the published ones, and print the SHA-256 of each."""
    load_image(args.image)  # before anything is downloaded
    names = args.weights or [row.name for row in CHECKPOINTS if row.logits]
    print("| checkpoint | image | published | here | largest difference | |")
    print("|---|---|---|---|---|---|")
    failed, origins = [], {}
    for name in names:
        try:
            comparisons = verify(name, args.image, args.logits)
        except (ValueError, OSError) as error:  # continue with the other checkpoints
            print(f"error: {printable_lines(error)}", file=sys.stderr)
            comparisons = []
        for c in comparisons:
            verdict = "matches" if c.matches else "differs"
            logits = " | ".join(" ".join(f"{value:.4f}" for value in values) for values in (c.expected, c.received))
            print(
                f"| {printable(c.name)} | {c.image_size} {c.resize} | {logits} | {c.difference:.1e} | {verdict} |",
                flush=True,
            )
            origins[c.name] = c.origin
        if not any(c.matches for c in comparisons):
            failed.append(name)
    print()
    for name, origin in origins.items():  # in the form of a row of the registry
        print(f"{printable(name)}: {', '.join(f'{key}={value!r}' for key, value in origin.items())}")
    print(f"{len(names) - len(failed)} of {len(names)} match within {TOLERANCE:g}", file=sys.stderr)
    return int(bool(failed))


def _print_table(titles, rows):
    """Prints columns, each as wide as its widest cell."""
    cells = [[printable(cell) for cell in row] for row in ([titles] if titles else []) + [*rows]]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _spaced(values):
    return " ".join(map(str, values))


def _short(value):
    """Shortens a value to one line; of a list, only the first ten elements are shown."""
    if not isinstance(value, (list, tuple)):
        return value
    return ", ".join(map(str, value[:10])) + (f", ... ({len(value)})" if len(value) > 10 else "")
