"""The command `keras-cnv2`: the commands of the library and those of the application around it, under one name.

It is a module of its own: the library imports nothing of the application, and `--help` imports neither.
"""

import importlib.util
import os
import sys
from pathlib import Path

LIBRARY = {
    "list": "Print the table of sizes and the table of published checkpoints.",
    "info": "Show details of a size, a published checkpoint or a file of weights.",
    "predict": "Name the most probable classes of image files; with a detector, find objects in them.",
    "convert": "Convert weights to another naming or a Keras file; of a model with your own head, only its encoder.",
    "export": "Write a model as SavedModel, serving folder, LiteRT or ONNX file, or for transformers, timm or Keras.",
    "push": "Upload a folder to the Hugging Face hub, as one commit, with the token of the hub's client.",
    "verify": "Compare the logits of checkpoints on an image with the published ones, and print the SHA-256 of each.",
}
TRAINING = {
    "quickstart": "Run everything once: pre-training, fine-tuning, evaluation, export and prediction on digits.",
    "pretrain": "Pre-train an encoder with FCMAE on images without labels.",
    "finetune": "Train a classifier from an FCMAE run, from published weights, from a file, or from scratch.",
    "evaluate": "Evaluate a classifier on labelled images: top-1, top-5, accuracy of each class, images per second.",
    "segment": "Train and evaluate semantic segmentation, from an encoder's weights or from scratch.",
    "detect": "Train and evaluate object detection, from an encoder's weights or from scratch.",
    "finish": "End a run early and write its model, plots and metrics, from the newest or the best checkpoint.",
    "analyze": "Analyse models: diversity of channels, class selectivity, Grad-CAM.",
    "report": "Write a page about runs: curves, images, metrics and configuration in one HTML file.",
    "recipes": "Show the recipes as tables, named after the tables of the paper.",
}
# The backends of Keras, by the names of their packages. Those that cannot train:
BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")
UNTRAINED = ("numpy", "openvino")
USAGE = "usage: keras-cnv2 [--help] [--version] COMMAND ..."


def main():
    """Runs the command of this process. Returns its exit code."""
    try:
        try:
            return run(sys.argv[1:])
        finally:
            if sys.stdout:  # which is None where it was closed
                sys.stdout.flush()
    except KeyboardInterrupt:  # while packages are imported: later, the commands answer it
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # of standard output: the commands tell all others
        if not isinstance(error, BrokenPipeError):  # the reader of `keras-cnv2 list | head -1` has enough
            print(f"error: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails with it at its end
        return 1


def run(arguments):
    """Runs a command. Returns its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors alone, of what TensorFlow tells as it starts
    name = arguments[0] if arguments else None
    if name in TRAINING | LIBRARY and (fault := backend_fault(name)):
        print(f"error: {fault}", file=sys.stderr)
        return 1
    if name in TRAINING:
        return importlib.import_module(f"{application()}.__main__").process(arguments, "keras-cnv2")
    if name in LIBRARY or name == "--version":
        from keras_cnv2.commands.main import main as library

        return library(arguments)
    if name in ("-h", "--help"):
        print(help_text())
        return 0
    wrong = f"there is no {name if name.isprintable() else ascii(name)}" if name else "which command?"
    print(f"{USAGE}\nerror: {wrong}; the commands are {', '.join(LIBRARY | TRAINING)}", file=sys.stderr)
    return 2


def backend_fault(command):
    """Why a command cannot run with the backend in the environment, or `None`. Keras tells it in a traceback."""
    backend = os.environ.get("KERAS_BACKEND")
    known = [name for name in BACKENDS if not (command in TRAINING and name in UNTRAINED)]
    if not backend:
        return None
    if backend not in known:
        return f"KERAS_BACKEND must be one of {', '.join(known)}. Received: KERAS_BACKEND={backend!r}"
    if importlib.util.find_spec(backend) is None:
        return f"KERAS_BACKEND={backend} needs a package that is not installed: pip install {backend}"
    return None


def application():
    """The name of the application's package: in the wheel another one than in a checkout."""
    return next(name for name in ("keras_cnv2_training", "training") if (Path(__file__).parent / name).is_dir())


def help_text():
    """All commands, with what each does."""
    width = max(map(len, LIBRARY | TRAINING))
    parts = [USAGE, "", "ConvNeXt V2: weights, predictions, exports, training."]
    groups = {"weights and exports": LIBRARY, 'training, with pip install "keras_cnv2[train]"': TRAINING}
    for title, commands in groups.items():
        parts += ["", f"{title}:", *(f"  {name:<{width}}  {summary}" for name, summary in commands.items())]
    return "\n".join([*parts, "", "`keras-cnv2 COMMAND --help` lists the options of one."])
