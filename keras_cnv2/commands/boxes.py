"""`keras-cnv2 predict` with a detector: finds objects in image files and draws their boxes and masks."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np

from keras_cnv2.arguments import fraction
from keras_cnv2.detection.detector import Detector
from keras_cnv2.detection.draw import draw_detections
from keras_cnv2.detection.predict import class_names_of, detect, image_size_for
from keras_cnv2.files import check_target, replacing
from keras_cnv2.images.pictures import load_pixels
from keras_cnv2.optional_packages import import_pillow
from keras_cnv2.terminal import printable

SCORE = 0.3

# Options of `predict` for detectors only, and those for classifiers only.
OWN, OTHERS = ("out", "score", "image_size"), ("top", "class_names")


def add_arguments(parser):
    """Adds the options for detectors to the parser of `predict`."""
    group = parser.add_argument_group("with a detector")
    group.add_argument("--out", type=Path, metavar="DIR", help="folder for copies with boxes and masks, as PNG")
    group.add_argument("--score", type=float, help=f"minimum score of detections, from 0 to below 1 (default: {SCORE})")
    group.add_argument("--image-size", type=int, help="side of the images in pixels (default: the model's)")


def check_unused(args, names=OWN, kind="detectors"):
    """Raises a `ValueError` if options were given that do not apply to this kind of model."""
    if given := [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None]:
        raise ValueError(
            f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} for {kind}, which this model is not."
        )


def run(model, paths, args, reading):
    """Prints the boxes found in image files and draws them on copies in `args.out`. Returns the exit code."""
    check_unused(args, OTHERS, "classifiers")
    if isinstance(model, Detector):  # takes its own suppression
        detector, model = model, model.model
        if args.score is not None:
            detector.score_threshold = fraction("score_threshold", args.score)
    else:
        detector = Detector(model, score_threshold=SCORE if args.score is None else args.score)
    size = image_size_for(model, args.image_size)
    if args.out:
        import_pillow("Boxes")
        _check_apart(args.out, paths)
        _make_folder(args.out)
    results, failed, taken = [], 0, set()
    for path, found in detect(detector, paths, size, reading=reading):
        if isinstance(found, Exception):
            failed += 1
            print(f"error: {printable(path)}: {printable(found)}", file=sys.stderr)
            continue
        row = {"path": str(path), "predictions": [*map(_as_json, found)]}
        if args.out:
            target = _target(args.out, path, taken)
            _draw(target, path, found, model, size, reading)
            row["picture"] = str(target)
        if args.json:
            results.append(row)
        else:
            _print(row)
    if args.json:
        print(_readable(results))
    return int(failed > 0)


def _check_apart(folder, paths):
    """Raises a `ValueError` if an image file, or what it links to, is in the output folder: it could be replaced."""
    out = os.path.realpath(folder)
    for path in paths:
        if out in (os.path.realpath(Path(path).parent), os.path.dirname(os.path.realpath(path))):
            raise ValueError(
                "Copies with boxes have names like the images, and could replace images in the same folder: give "
                f"another folder. Received: --out {folder} with {path}"
            )


def _make_folder(folder):
    """Creates the output folder. It is called before prediction, so that an unwritable folder is reported at once."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"This folder cannot be created ({error.strerror}). Received: --out {folder}") from error
    check_target(folder / "a.png")


def _target(folder, path, taken):
    """Returns the output path for an image file. Files of the same name in different folders get numbers."""
    stem, number = Path(path).stem, 1
    while (name := f"{stem}-{number}.png" if number > 1 else f"{stem}.png").casefold() in taken:
        number += 1
    taken.add(name.casefold())
    return folder / name


def _draw(target, path, found, model, size, reading):
    Image, _, _ = import_pillow("Boxes")
    pixels = load_pixels(path, size, reading)
    with replacing(target) as temporary:
        Image.fromarray(draw_detections(pixels, found, class_names_of(model))).save(temporary)


def _as_json(detection):
    """Returns a detection as a dict for JSON: without a mask, or with one as COCO's run lengths."""
    found = detection._asdict()
    mask = found.pop("mask")
    return found if mask is None else {**found, "mask": run_lengths(mask)}


def run_lengths(mask):
    """Encodes a mask in COCO's format of uncompressed run lengths, which `pycocotools.mask.frPyObjects` reads.

    Args:
        mask: Bool array `(height, width)`.

    Returns:
        {"size": [height, width], "counts": list of ints}: the numbers of pixels outside, inside, outside, ... of the
        object, column by column.
    """
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = [0, *changes] if pixels[0] == 0 else [0, 0, *changes]
    return {"size": [*mask.shape], "counts": np.diff([*starts, len(pixels)]).tolist()}


def _readable(results):
    """Returns indented JSON in which a list of numbers is one line: a mask has hundreds of run lengths."""
    indented = json.dumps(results, indent=1)
    # Strings in JSON contain no line breaks, so only lists match.
    return re.sub(r"\[\n([-+\d.eE,\s]+)\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", indented)


def _print(row):
    print(printable(row["path"]))
    for one in row["predictions"]:
        box = " ".join(f"{value:7.1f}" for value in one["box"])
        print(f"  {100 * one['score']:5.1f} %  {box}  {printable(one['name'])}")
    if not row["predictions"]:
        print("  nothing found")
    if "picture" in row:
        print(f"  {printable(row['picture'])}")
