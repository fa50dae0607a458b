"""LiteRT files: size, time of one image and agreement with the model, for every quantization.

    python -m benchmarks.litert PHOTOS [--sizes atto tiny] [--threads 1 2] [--weights imagenet] [--rounds 7]

PHOTOS is a folder of JPEGs in any structure. Every other photo, up to 100, is used to calibrate int8. Up to 250 of the
rest are used to count how often the best class agrees, among photos for which the model's best two probabilities are
more than 10 % apart. Without `--weights`, the weights are the pseudo-weights of the tests, which give similar
probabilities to many classes. Variants take turns in one process.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

import keras_cnv2
from benchmarks import contest
from benchmarks.measure import Spread, take_turns
from benchmarks.report import Results
from keras_cnv2.commands.predict import find_pictures
from keras_cnv2.export.litert.export import QUANTIZATIONS, export_litert
from tests import golden

SIZE = 224
CALIBRATION, EVALUATION = 100, 250
CLEAR = 1.1
CALLS = 10


@dataclass(frozen=True)
class Variant:
    """One LiteRT file.

    Args:
        name: "float32" or the quantization.
        path: Path of the file.
        same: Number of photos with the same best class as the model.
        difference: Largest difference of probabilities.
    """

    name: str
    path: Path
    same: int
    difference: float


def model_of(size, weights):
    build = getattr(keras_cnv2, f"ConvNeXtV2{size.capitalize()}")
    if weights:
        return build(weights=weights, input_shape=(SIZE, SIZE, 3))
    model = build(input_shape=(SIZE, SIZE, 3))
    golden.set_weights(model, golden.load(f"dense_{size}")["seed"])
    return model


def interpreter_of(path, threads):
    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def probabilities(path, images):
    run = Interpreter(str(path)).get_signature_runner()
    return np.concatenate([run(images=image[None])["probabilities"] for image in images])


def timer(path, threads, image):
    """Returns a function for `take_turns` that returns the median time of some calls."""
    interpreter = interpreter_of(path, threads)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])

    def turn():
        seconds = []
        for _ in range(CALLS):
            start = time.perf_counter()
            interpreter.invoke()
            seconds.append(time.perf_counter() - start)
        return (statistics.median(seconds),)

    turn()  # to warm up
    return turn


def variants_of(model, photos, folder):
    """Exports a file for every quantization and compares its predictions with the model's.

    Returns the `Variant`s, the number of photos with a clear best class, and one image.
    """
    images = np.stack([keras_cnv2.load_image(path, SIZE) for path in photos[1::2][:EVALUATION]])
    expected = model.predict(images, batch_size=25, verbose=0)
    second, best = np.sort(expected)[:, -2:].T
    clear = best > CLEAR * second
    variants = []
    for quantization in QUANTIZATIONS:
        name = quantization or "float32"
        path = folder / f"{model.name}_{name}.tflite"
        export_litert(model, path, quantization, photos[0::2][:CALIBRATION] if quantization == "int8" else None)
        received = probabilities(path, images)
        same = (received.argmax(-1) == expected.argmax(-1))[clear].sum()
        variants.append(Variant(name, path, int(same), float(np.abs(received - expected).max())))
    return variants, int(clear.sum()), images[0]


def rows(size, variants, clear, results, threads):
    """Yields the Markdown rows of a size."""
    for variant in variants:
        times = []
        for count in threads:
            turns = results.cases[f"{size}, {threaded(count)}", 1]
            spread = Spread.of(turn.seconds * 1e3 for turn in turns if turn.contestant == variant.name)
            times.append(f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})")
        megabytes = f"{variant.path.stat().st_size / 1e6:.1f}"
        agreement = f"{variant.same} of {clear} | {variant.difference:.1e}"
        yield f"| {size}, {variant.name} | {megabytes} | {' | '.join(times)} | {agreement} |"


def threaded(count):
    return f"{count} thread{'s' * (count > 1)}"


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.add_argument("photos", help="folder of JPEG files")
    parser.add_argument("--sizes", nargs="+", default=["atto", "tiny"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--weights", help="published weights or a file, as models take them; with one of `--sizes`")
    args = parser.parse_args(argv)

    photos = list(find_pictures([args.photos]))
    results = Results(f"LiteRT, one image of {SIZE} x {SIZE}", "float32")
    times = " | ".join(f"ms, {threaded(count)} (spread)" for count in args.threads)
    table = [f"| | MB | {times} | same best class | largest difference |", "|---" * (4 + len(args.threads)) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            variants, clear, image = variants_of(model_of(size, args.weights), photos, Path(folder))
            for count in args.threads:
                timers = {variant.name: timer(variant.path, count, image) for variant in variants}
                for turn in take_turns(timers, args.rounds):
                    results.add(f"{size}, {threaded(count)}", 1, turn)
            table += rows(size, variants, clear, results, args.threads)
    contest.finish(results, "litert", args.out, "\n".join(table))


if __name__ == "__main__":
    main()
