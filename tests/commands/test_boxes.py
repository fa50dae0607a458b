"""`keras-cnv2 predict` with a detector."""

import json
import re
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

import keras_cnv2
from keras_cnv2.commands import boxes as command
from keras_cnv2.commands.boxes import run_lengths
from keras_cnv2.commands.main import main
from keras_cnv2.detection import Detector, fit_picture, paste_masks
from keras_cnv2.detection.predict import Detection
from tests.detection.samples import noisy, numpy_of, tiny, tiny_mask_rcnn

pytest.importorskip("keras_cv")

NAMES = ("red", "white", "flake\n")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return noisy(tiny(class_names=NAMES), spread=3)


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "detector.keras"
    model.save(path)
    return str(path)


@pytest.fixture
def pictures(tmp_path):
    """Two of one name, but for the case, in different folders, and one that is none."""
    rng = np.random.default_rng(0)
    paths = []
    for folder, name, shape in (("a", "it.png", (40, 60, 3)), ("b", "IT.png", (90, 30, 3))):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / name)
        Image.fromarray(rng.integers(0, 256, shape, "uint8")).save(paths[-1])
    (tmp_path / "b" / "no.png").write_bytes(b"none")
    return paths


def by_hand(model, path, size, score):
    """Class, score and box of each detection, in the picture's pixels."""
    pixels = np.asarray(Image.open(path))
    image, scale = fit_picture(pixels, size)
    found = Detector(model, score_threshold=score).predict(image[None], verbose=0)
    count = found["count"][0]
    boxes = np.clip(found["boxes"][0, :count] / np.asarray(scale), 0, np.tile(pixels.shape[1::-1], 2))
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return found["classes"][0, :count][inside], found["scores"][0, :count][inside], boxes[inside]


def test_json(model, weights, pictures, capsys):
    options = ["--weights", weights, "--image-size", "64", "--score", "0.9", "--json"]
    assert main(["predict", *map(str, pictures), *options]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in rows] == [*map(str, pictures)]
    for row, path in zip(rows, pictures):
        classes, scores, boxes = by_hand(model, path, 64, 0.9)
        assert len(row["predictions"]) == len(classes) > 3
        assert [one["name"] for one in row["predictions"]] == [NAMES[number] for number in classes]
        np.testing.assert_allclose([one["score"] for one in row["predictions"]], scores, rtol=1e-5)
        np.testing.assert_allclose([one["box"] for one in row["predictions"]], boxes, rtol=1e-4, atol=1e-3)
        assert all(left < right and top < bottom for left, top, right, bottom in boxes)


def test_printed_and_drawn(weights, pictures, tmp_path, capsys):
    folder = tmp_path / "new" / "drawn"
    arguments = ["predict", str(tmp_path / "a"), str(tmp_path / "b"), "--weights", weights, "--image-size", "64"]
    assert main([*arguments, "--out", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert "no.png: Not a JPEG" in err
    lines = out.splitlines()
    first = next(line for line in lines if "%" in line)
    score, box = first.split("%")[0], first.split()[2:6]
    assert 30 <= float(score) <= 100
    assert first.split()[6] in ("red", "white", "flake?")
    left, top, right, bottom = map(float, box)
    assert 0 <= left < right <= 60
    assert 0 <= top < bottom <= 40
    assert sorted(path.name for path in folder.iterdir()) == ["IT-2.png", "it.png"]
    for path, source in ((folder / "it.png", pictures[0]), (folder / "IT-2.png", pictures[1])):
        drawn, plain = (np.asarray(Image.open(file)) for file in (path, source))
        assert drawn.shape == plain.shape
        assert (drawn != plain).any()
    assert f"  {folder / 'it.png'}" in lines


def test_nothing_found(weights, pictures, capsys):
    options = ["--weights", weights, "--image-size", "64", "--score", "0.9999999"]
    assert main(["predict", str(pictures[0]), *options]) == 0
    assert capsys.readouterr().out.splitlines() == [str(pictures[0]), "  nothing found"]


def test_image_size_of_the_model(tmp_path, pictures, capsys):
    tiny(input_shape=(64, 64, 3)).save(tmp_path / "a.keras")
    command = ["predict", str(pictures[0]), "--weights", str(tmp_path / "a.keras"), "--json"]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--image-size", "96"]) == 1
    assert "image_size must be a multiple of 32 and match the backbone's image size" in capsys.readouterr().err


def test_image_size_of_the_training(model, tmp_path, pictures, capsys):
    """A detector for images of any size keeps the one it was trained with; another can be given."""
    trained = tiny(class_names=NAMES, image_size=96)
    trained.set_weights(model.get_weights())
    trained.save(tmp_path / "a.keras")
    command = ["predict", str(pictures[0]), "--weights", str(tmp_path / "a.keras"), "--json", "--score", "0.9"]
    for options, size in (([], 96), (["--image-size", "64"], 64)):
        assert main([*command, *options]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        _, scores, _ = by_hand(model, pictures[0], size, 0.9)
        np.testing.assert_allclose([one["score"] for one in row["predictions"]], scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "image_size must be a multiple of 32: give that of the training, .* Received: image_size=None"),
        (["--image-size", "33"], "image_size must be a multiple of 32. Received: image_size=33"),
        (["--image-size", "64", "--score", "1.5"], "score"),
        (["--image-size", "64", "--top", "3"], "--top is for classifiers, which this model is not"),
        (["--image-size", "64", "--class-names", "x"], "--class-names is for classifiers, which this model is not"),
    ],
)
def test_wrong(weights, pictures, options, message, capsys, tmp_path):
    folder = tmp_path / "drawn"
    assert main(["predict", str(pictures[0]), "--weights", weights, *options, "--out", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert re.search(message, err)
    assert not folder.exists()


def test_not_for_classifiers(tmp_path, pictures, capsys):
    keras_cnv2.ConvNeXtV2(depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), classes=2, input_shape=(32, 32, 3)).save(
        tmp_path / "a.keras"
    )
    options = ["--out", str(tmp_path / "new"), "--score", "0.5"]
    assert main(["predict", str(pictures[0]), "--weights", str(tmp_path / "a.keras"), *options]) == 1
    assert "--out, --score are for detectors, which this model is not" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_out_is_a_file(weights, pictures, tmp_path, capsys):
    (tmp_path / "taken").touch()
    options = ["--image-size", "64", "--out", str(tmp_path / "taken")]
    assert main(["predict", str(pictures[0]), "--weights", weights, *options]) == 1
    assert re.search("This folder cannot be created .* Received: --out .*taken", capsys.readouterr().err)


@pytest.mark.parametrize("link", [None, "folder", "file"])
def test_out_is_the_folder_of_the_pictures(weights, pictures, tmp_path, capsys, link):
    path, before = pictures[0], pictures[0].read_bytes()
    if link == "folder":
        (tmp_path / "link").symlink_to(path.parent)
        path = tmp_path / "link" / path.name
    elif link == "file":
        path = tmp_path / "link.png"
        path.symlink_to(pictures[0])
    options = ["--weights", weights, "--image-size", "64", "--out", str(pictures[0].parent)]
    assert main(["predict", str(pictures[1]), str(path), *options]) == 1
    assert re.search("could replace images in the same folder.* Received: --out .*a with ", capsys.readouterr().err)
    assert pictures[0].read_bytes() == before
    assert [*pictures[0].parent.iterdir()] == [pictures[0]]


def test_without_pillow(weights, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    options = ["--image-size", "64", "--out", str(tmp_path / "new")]
    assert main(["predict", str(pictures[0]), "--weights", weights, *options]) == 1
    assert "error: Boxes are drawn with Pillow: pip install pillow" in capsys.readouterr().err


def test_a_detector_is_taken_with_its_own_suppression(tmp_path, pictures, capsys):
    """Also around a compiled model, whose loss is named in the file."""
    compiled = noisy(tiny(class_names=NAMES), spread=3)
    compiled.compile("sgd")
    Detector(compiled, max_detections=2, score_threshold=0.1).save(tmp_path / "detector.keras")
    options = ["--weights", str(tmp_path / "detector.keras"), "--json", "--image-size", "64"]
    assert main(["predict", str(pictures[0]), *options]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert 0 < len(row["predictions"]) <= 2
    assert min(one["score"] for one in row["predictions"]) > 0.1


def pixels_of(lengths):
    """The mask that run lengths stand for."""
    pixels = np.repeat(np.arange(len(lengths["counts"])) % 2 == 1, lengths["counts"])
    return pixels.reshape(lengths["size"], order="F")


@pytest.mark.parametrize("filled", [slice(0), slice(3), slice(2, 8), slice(11, None), slice(None)])
def test_run_lengths(filled):
    mask = np.zeros((5, 7), bool)
    mask.ravel()[filled] = True
    lengths = run_lengths(mask)
    np.testing.assert_array_equal(pixels_of(lengths), mask)
    coco = pytest.importorskip("pycocotools.mask")
    np.testing.assert_array_equal(coco.decode(coco.frPyObjects(json.loads(json.dumps(lengths)), 5, 7)), mask)


def test_lists_of_numbers_are_lines(monkeypatch, capsys):
    """The run lengths of a photo's mask would be hundreds of lines."""
    names = 'a [\n1]"', "b"
    found = [Detection(name, score, (0.5, 1e-7, 2.0, 3e20), np.eye(3) > 0) for name, score in zip(names, (0.5, 1e-9))]
    monkeypatch.setattr(command, "detect", lambda *args, **options: [("1.png", found), ("2.png", [])])
    args = SimpleNamespace(top=None, class_names=None, score=None, image_size=64, out=None, json=True)
    command.run(tiny_mask_rcnn(), ["1.png", "2.png"], args, None)
    out = capsys.readouterr().out
    predictions = [{**one._asdict(), "box": [*one.box], "mask": run_lengths(one.mask)} for one in found]
    assert json.loads(out) == [{"path": "1.png", "predictions": predictions}, {"path": "2.png", "predictions": []}]
    assert out.count('"counts": [0, 1, 3, 1, 3, 1]') == 2
    assert out.count('"box": [0.5, 1e-07, 2.0, 3e+20]') == 2


def test_masks(tmp_path, pictures, capsys):
    """Of boxes that are not yet cut at the border of the picture."""
    detector = Detector(tiny_mask_rcnn(class_names=NAMES, image_size=64), max_detections=6, score_threshold=0.3)
    detector.save(tmp_path / "detector.keras")
    options = ["--weights", str(tmp_path / "detector.keras"), "--json", "--out", str(tmp_path / "drawn")]
    assert main(["predict", str(pictures[1]), *options]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    image, scale = fit_picture(np.asarray(Image.open(pictures[1])), 64)
    found = numpy_of(detector(image[None]))
    boxes = found["boxes"] / np.float32(scale)
    pasted = numpy_of(paste_masks(found["masks"], boxes, 90, 30))[0]
    inside = (boxes[0, :, 0] < 30) & (boxes[0, :, 1] < 90) & (found["classes"][0] >= 0)
    assert len(row["predictions"]) == inside.sum() > 2
    drawn, plain = (np.asarray(Image.open(path)) for path in (row["picture"], pictures[1]))
    for one, probabilities in zip(row["predictions"], pasted[inside]):
        is_clear = abs(probabilities - 0.5) > 1e-3
        np.testing.assert_array_equal(pixels_of(one["mask"])[is_clear], (probabilities >= 0.5)[is_clear])
    covered = np.any([pixels_of(one["mask"]) for one in row["predictions"]], axis=0)
    assert (drawn != plain).any(-1)[covered].mean() > 0.9
