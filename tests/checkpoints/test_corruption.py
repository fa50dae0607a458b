"""Random damage to good files: each is refused and the model stays as it was, or it is loaded as a whole."""

import zlib

import numpy as np
import pytest

import keras_cnv2
from tests.checkpoints.samples import CLASSIFIERS, ENCODERS, FCMAES, FILES, classifier

# Damages of a file, every day and before a release: of all nine files over two thousand.
QUICK, CASES = 60, 250
# Bytes: in the samples, the pickles, the headers and the tables of zip archives are at the very start and end.
AIMED = 10_000
# No float in the samples. What has it after loading was not set.
UNSET = np.float32(12345.678)


def flip_bits(content, rng, place):
    for _ in range(rng.integers(1, 5)):
        content[place()] ^= 1 << rng.integers(8)


def change_bytes(content, rng, place):
    for _ in range(rng.integers(1, 5)):
        content[place()] = rng.integers(256)


def cut_end(content, rng, place):
    del content[place() :]


def cut_start(content, rng, place):
    del content[: place() + 1]


def insert_run(content, rng, place):
    at = place()
    content[at:at] = rng.bytes(run(rng))


def repeat_run(content, rng, place):
    source, at = place(), place()
    content[at:at] = content[source : source + run(rng)]


def remove_run(content, rng, place):
    start = place()
    del content[start : start + run(rng)]


def clear_run(content, rng, place):
    start = place()
    length = len(content[start : start + run(rng)])
    content[start : start + length] = bytes(length)


def swap_blocks(content, rng, place):
    length = run(rng)
    first, second = sorted((place(), place()))
    second = max(second, first + length)  # they do not overlap
    content[:] = b"".join(
        (
            content[:first],
            content[second : second + length],
            content[first + length : second],
            content[first : first + length],
            content[second + length :],
        )
    )


DAMAGES = (
    flip_bits,
    change_bytes,
    cut_end,
    cut_start,
    insert_run,
    repeat_run,
    remove_run,
    clear_run,
    swap_blocks,
)


def run(rng):
    """A length, mostly short."""
    return int(2 ** rng.uniform(0, 12))


def damaged(content, rng):
    """The content with one random damage, and what was done to it."""
    damage, aim = DAMAGES[rng.integers(len(DAMAGES))], rng.choice(["anywhere", "start", "end"])
    size = len(content)
    low, high = {"anywhere": (0, size), "start": (0, AIMED), "end": (size - AIMED, size)}[aim]
    changed = bytearray(content)
    damage(changed, rng, lambda: int(rng.integers(low, high)))
    return bytes(changed), f"{damage.__name__}, {aim}"


def bits(model):
    """All of the model's weights, one after the other, as integers: a NaN equals itself."""
    return np.concatenate([weight.ravel() for weight in model.get_weights()]).view("uint32")


def unset(model):
    for weight in model.weights:
        weight.assign(np.full(weight.shape, UNSET))


@pytest.fixture(scope="module")
def model():
    return classifier()


def loads(model, path):
    """Whether the file is loaded. No error but ours may come."""
    try:
        keras_cnv2.load_checkpoint(model, path)
    except keras_cnv2.CheckpointError:
        return False
    return True


def of_files(cases, marks=lambda name: ()):
    return [pytest.param(name, cases, marks=marks(name)) for name in (*CLASSIFIERS, *ENCODERS, *FCMAES)]


def marks_of(name):
    """One file of each format is quick enough for every day."""
    quick = name in ("official_dense.pt", "official_dense_legacy.pt", "timm_linear.safetensors", *FCMAES)
    return () if quick else pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "cases"),
    [*of_files(QUICK, marks_of), *of_files(CASES, lambda name: [pytest.mark.slow, pytest.mark.release])],
)
def test_all_or_nothing(model, name, cases, tmp_path, capfd):
    content, path = (FILES / name).read_bytes(), tmp_path / name
    unset(model)
    before = bits(model)
    keras_cnv2.load_checkpoint(model, FILES / name)
    good = bits(model)
    is_set = good != before  # of an encoder's file, all but norm and head
    assert is_set.sum() == len(good) - (0 if name in CLASSIFIERS else 2 * 32 + 32 * 10 + 10)
    unset(model)

    count = {"loaded": 0, "refused": 0}
    for case in range(cases):
        changed, what = damaged(content, np.random.default_rng([zlib.crc32(name.encode()), case]))
        path.write_bytes(changed)
        if not loads(model, path):
            count["refused"] += 1
            assert (bits(model) == before).all(), (case, what)
            continue
        count["loaded"] += 1
        loaded = bits(model)
        assert ((loaded != before) == is_set).all(), (case, what)
        if content.startswith(b"PK"):
            # Checksums cover the pickle and the numbers. Names, places and sizes in the archive's tables stand there
            # twice or lead to a wrong checksum; padding, dates and what the model has no use for may change freely.
            assert (loaded == good).all(), (case, what)
        unset(model)
    assert count["refused"] > 0, count
    assert count["loaded"] > 0 or cases < CASES, count  # some formats forgive little
    assert capfd.readouterr() == ("", "")
