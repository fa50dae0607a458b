"""`keras-cnv2 export`: exports weights to deployment formats, and to folders for other libraries."""

from functools import partial
from pathlib import Path

from keras_cnv2.checkpoints.read import without_suffix
from keras_cnv2.commands.predict import add_reading_options, pictures_at, read_class_names
from keras_cnv2.detection.detector import is_detector
from keras_cnv2.export.images import INPUT_DTYPES
from keras_cnv2.export.litert.export import QUANTIZATIONS, export_litert
from keras_cnv2.export.onnx import export_onnx
from keras_cnv2.export.saved_model.export import export_saved_model
from keras_cnv2.export.serving.export import export_serving
from keras_cnv2.images.pictures import RESIZES
from keras_cnv2.pretrained.onnx_folder import FILE
from keras_cnv2.pretrained.save import LAYOUTS, ONNX, save_pretrained
from keras_cnv2.restore import restore_model
from keras_cnv2.sizes import SIZES
from keras_cnv2.terminal import printable

EXPORTS = {
    "saved_model": export_saved_model,
    "serving": export_serving,
    "litert": export_litert,
    "onnx": export_onnx,
    "pretrained": save_pretrained,
}

# File name endings of the exports that are a single file.
SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}

# The exports that accept each option.
SERVED = ("saved_model", "serving")
DEPLOYED = (*SERVED, "litert", "onnx")
OPTIONS = {
    "image_size": DEPLOYED,
    "resize": DEPLOYED,
    "class_names": DEPLOYED,
    "top": SERVED,
    "input_dtype": (*SERVED, "litert"),
    "exif_orientation": (*SERVED, "litert"),
    "max_pixels": (*SERVED, "litert"),
    "name": ("serving",),
    "version": ("serving",),
    "max_batch_size": ("serving",),
    "quantization": ("litert",),
    "representative": ("litert",),
    "opset_version": ("onnx",),
    "layout": ("onnx", "pretrained"),
    "licence": ("pretrained",),
    "overwrite": ("saved_model", "litert", "onnx", "pretrained"),
}


def add_arguments(parser, weights_help):
    """Adds the arguments of the command to its parser."""
    parser.add_argument("model", metavar="MODEL", help=f"a size, or {weights_help}")
    parser.add_argument("--weights", help=f"if MODEL is a size: {weights_help} (default: imagenet)")
    parser.add_argument("--to", required=True, choices=EXPORTS, help="format")
    parser.add_argument("--out", type=Path, help="file or folder to write (default: named after the model)")
    add = partial(parser.add_argument, default=None)
    add("--image-size", type=int, help="side of the images in pixels (default: the model's)")
    add("--resize", choices=RESIZES, help="how image files are resized (default: as for the model)")
    add("--class-names", metavar="FILE", help="text file, one name per line (default: the model's)")
    add("--top", type=int, help="number of classes to name in an answer (default: 5)")
    add("--input-dtype", choices=INPUT_DTYPES, help="dtype of images (default: float32)")
    add_reading_options(parser)  # for image files sent to the server, and those for int8 calibration
    add("--name", help="name of the model on the server (default: convnextv2)")
    add("--version", type=int, help="version of the model on the server (default: the next one)")
    add("--max-batch-size", type=int, help="images that the server computes at once (default: 32)")
    add("--quantization", choices=QUANTIZATIONS[1:], help="quantization of a LiteRT file (default: none)")
    add("--representative", nargs="+", metavar="IMAGE", help="images for int8: files, folders, glob patterns")
    add("--opset-version", type=int, help="version of the operations of an ONNX file (default: the converter's)")
    add("--layout", choices=LAYOUTS, help="library that reads the folder of --to pretrained, or of an ONNX file")
    add("--licence", help="licence of the weights, as the hub names it, for the card (default: that of their origin)")
    parser.add_argument("--overwrite", action="store_const", const=True, help="replace an existing file or folder")


def run_export(args):
    """Write a model as SavedModel, serving folder, LiteRT or ONNX file, or for transformers, timm or Keras."""
    options = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    for name in options:
        if args.to not in OPTIONS[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} is an option of --to {' and '.join(OPTIONS[name])}. "
                f"Received: --to {args.to}"
            )
    if args.model not in SIZES and args.weights:
        raise ValueError(f"--weights is only for a MODEL that is a size. Received: --weights with MODEL {args.model}")
    is_file = args.to in SUFFIXES and args.layout in (None, "keras")
    if args.to in SUFFIXES:  # these exports have no `overwrite` and always replace the file; `_check_free` checks it
        options.pop("overwrite", None)
    # The following checks also come before any download.
    if args.quantization == "int8" and not args.representative:
        raise ValueError("int8 is calibrated with images: give --representative IMAGES. Received: none")
    if args.representative:
        options["representative"] = pictures_at(args.representative)
    out = args.out or Path(without_suffix(Path(args.model).name) + (SUFFIXES[args.to] if is_file else f"_{args.to}"))
    if args.class_names:
        options["class_names"] = read_class_names(args.class_names)
    _check_free(out if is_file or args.to != "onnx" else out / ONNX / FILE, out, args)
    size = args.model if args.model in SIZES else None
    weights = (args.weights or "imagenet") if size else args.model
    model = restore_model(weights, size, any_size=args.image_size is not None)
    if is_detector(model) and "top" in options:
        raise ValueError("--top does not apply to detectors: leave it out. Received: --top")
    EXPORTS[args.to](model, out, **options)
    compared = "" if args.to == "pretrained" else ", outputs compared with the model's"
    print(f"{printable(out)}: {_bytes(out) / 1e6:.1f} MB{compared}")
    return 0


def _check_free(written, out, args):
    if args.to != "serving" and written.exists() and not args.overwrite:
        raise FileExistsError(f"The output exists already; --overwrite replaces it. Received: {written}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"There is no such folder to write to. Received: {out}")


def _bytes(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
