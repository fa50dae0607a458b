"""Photographs to batches for pre-training: `Folder`, compared with PIL in one process per core.

    python -m benchmarks.input_pipeline FOLDER [--batch 64] [--batches 24] [--rounds 7]

FOLDER holds JPEGs in any structure. Both pipelines take random resized crops of 20 to 100 % of the area, resize them to
224 x 224, bicubic and antialiased, and mirror half of the images. First it is checked that both make the same image of
the same crop. They run in turns. The result is the median of the rounds' ratios, so that other processes disturb both
equally. Peak memory is the memory that a pipeline adds to its processes; PIL's shared memory is counted once.
"""

import multiprocessing
import os
import time
from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import PIL
import tensorflow as tf
from PIL import Image

from benchmarks import contest
from benchmarks.measure import Turn
from benchmarks.report import Results
from benchmarks.workers import forget_peak, resident
from keras_cnv2.images.folders import LeftOut, pictures_below
from training.data.draws import Draws
from training.data.images import augment
from training.data.images.crops import random_crop
from training.data.images.folders import Folder
from training.data.loader import CORES
from training.recipes.images import PRETRAINING

SIZE = 224
AREA = (0.2, 1.0)

# Largest mean difference between both in grey levels, over all images and for a single image.
TOLERANCE, TOLERANCE_OF_ONE = 0.5, 1.5


def pil_crop(picture, box, mirrored):
    """Makes an image with PIL as fast as possible: resizes a part of the picture without copying that part.

    A large part is decoded at 1/2, 1/4 or 1/8 of its size, rounded to whole pixels of that size, as in `random_crop`.
    """
    reduction = max(r for r in (1, 2, 4, 8) if r == 1 or min(box[2:]) >= 2 * SIZE * r)
    picture.draft("RGB", [side // reduction for side in picture.size])
    top, left, height, width = (number // reduction for number in box)
    image = picture if picture.mode == "RGB" else picture.convert("RGB")  # `convert` would always copy
    image = image.resize((SIZE, SIZE), Image.BICUBIC, box=(left, top, left + width, top + height))
    return np.asarray(image.transpose(Image.FLIP_LEFT_RIGHT) if mirrored else image)


def pil_random_box(height, width, rng):
    """Draws top, left, height and width as torchvision's RandomResizedCrop does."""
    for _ in range(10):
        area = rng.uniform(*AREA) * height * width
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        box = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
        if box[0] <= height and box[1] <= width:
            return rng.integers(height - box[0] + 1), rng.integers(width - box[1] + 1), *box
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


class PilBatches:
    """Batches of uint8 images from processes that write into shared memory.

    Args:
        paths: Paths of the pictures.
        batch_size: Int.
        processes: Int, the number of processes.
    """

    def __init__(self, paths, batch_size, processes):
        context = multiprocessing.get_context("spawn")
        shape = (2 * processes, batch_size, SIZE, SIZE, 3)
        memory = context.RawArray("B", int(np.prod(shape)))
        self.shared_bytes = len(memory)
        self.slots = np.frombuffer(memory, "uint8").reshape(shape)
        ready = context.SimpleQueue()
        self.pool = context.Pool(processes, _start_worker, (memory, shape, paths, ready))
        self.memory_before = dict(ready.get() for _ in range(processes))
        self.next = 0

    def __iter__(self):
        pending = deque(self._ask(slot) for slot in range(len(self.slots)))
        try:
            while True:
                slot = pending.popleft().get()
                yield self.slots[slot]
                pending.append(self._ask(slot))
        finally:
            for result in pending:
                result.wait()

    def _ask(self, slot):
        self.next += 1
        return self.pool.apply_async(_fill, (slot, self.next))


def _start_worker(memory, shape, paths, ready):
    global _worker
    ready.put((os.getpid(), resident()))
    _worker = SimpleNamespace(slots=np.frombuffer(memory, "uint8").reshape(shape), paths=paths)


def _fill(slot, number):
    rng = np.random.default_rng(number)
    images = _worker.slots[slot]
    for image in images:
        with Image.open(_worker.paths[rng.integers(len(_worker.paths))]) as picture:
            image[:] = pil_crop(picture, pil_random_box(picture.height, picture.width, rng), rng.random() < 0.5)
    return slot


def check_same_images(paths):
    """Raises an `AssertionError` unless both pipelines make the same images of the same crops."""
    differences = []
    for number, path in enumerate(paths):
        contents = tf.io.read_file(path)
        ours = random_crop(contents, SIZE, AREA, True, Draws(number))
        draws = Draws(number)
        height, width, _ = tf.io.extract_jpeg_shape(contents).numpy()
        box = [int(part) for part in augment.sample_crop(height, width, AREA, draws)]
        mirrored = float(keras.random.uniform((), seed=draws)) < 0.5
        with Image.open(path) as picture:
            differences.append(np.abs(ours - pil_crop(picture, box, mirrored)).mean())
    mean, largest = np.mean(differences), np.max(differences)
    assert mean < TOLERANCE, f"{mean:.2f} grey levels apart"
    assert largest < TOLERANCE_OF_ONE, f"{largest:.2f} grey levels apart"
    print(f"{len(paths)} images: {mean:.2f} grey levels apart on average, at most {largest:.2f}", flush=True)


def seconds_per_batch(batches, count):
    """Takes three batches to warm up, then times `count` batches. Returns the mean seconds per batch."""
    batches = iter(batches)
    for _ in range(3):
        next(batches)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return (time.perf_counter() - start) / count


class Memory:
    """Measures the memory of some processes, minus what they had after their imports.

    Args:
        before: {process id, or "self": bytes after the imports}.
        shared_bytes: Size of the memory that all of them share.
    """

    def __init__(self, before, shared_bytes=0):
        self.before = before
        self.twice = (len(before) - 1) * shared_bytes

    def forget_peak(self):
        return all(forget_peak(process) for process in self.before)

    def peak(self):
        return sum(resident(True, process) - before for process, before in self.before.items()) - self.twice


def main(argv=None):
    parser = contest.parser_of(__doc__)
    parser.add_argument("folder", help="of JPEG files, in folders or not")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=24, help="of a round")
    parser.add_argument("--processes", type=int, default=CORES, help="of PIL (default: one a core)")
    args = parser.parse_args(argv)

    paths = pictures_below(args.folder, LeftOut())
    check_same_images(paths[:: -(-len(paths) // 100)])
    recipe = replace(PRETRAINING["images"], image_size=SIZE, crop_area=AREA, batch_size=args.batch)
    pil = PilBatches(paths, args.batch, args.processes)
    memory = {"Folder": Memory({"self": resident()}), "PIL": Memory(pil.memory_before, pil.shared_bytes)}
    contestants = {"Folder": Folder(args.folder, labelled=False).training(recipe), "PIL": pil}

    results = Results(f"Photographs to batches of {SIZE} x {SIZE}, PIL {PIL.__version__}", "Folder")
    case = f"batch {args.batch}, PIL in {args.processes} processes"
    for number in range(-1, args.rounds):  # the first round is a warm-up
        for name, batches in contestants.items():
            measurable = memory[name].forget_peak()
            seconds = seconds_per_batch(batches, args.batches)
            peak = memory[name].peak() if measurable else None
            if number >= 0:
                results.add(case, args.batch, Turn(name, number, seconds, peak))
    pil.pool.terminate()
    contest.finish(results, "input_pipeline", args.out)


if __name__ == "__main__":
    main()
