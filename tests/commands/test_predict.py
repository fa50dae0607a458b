import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from PIL import Image

import keras_cnv2
from keras_cnv2.checkpoints.registry import find_checkpoint
from keras_cnv2.restore import restore_model
from tests.checkpoints.hub_server import HubServer
from tests.checkpoints.samples import FILES, classifier, snapshot, unchanged

pytestmark = pytest.mark.lowest

ROOT = Path(__file__).parents[2]
FILE = str(FILES / "official_dense.pt")
COMMAND = "import sys; from keras_cnv2.commands.main import main; sys.exit(main())"
NAMES = [f"sort {i}" for i in range(10)]


@pytest.fixture
def restored_once(monkeypatch):
    """The model of the unchanging sample is built, and its prediction traced, once for all commands in this process."""

    def restore(weights, size=None):
        return sample_model() if (weights, size) == (FILE, None) else restore_model(weights, size)

    monkeypatch.setattr("keras_cnv2.commands.main.restore_model", restore)


@functools.cache
def sample_model():
    return restore_model(FILE)


@pytest.fixture
def pictures(tmp_path):
    """A tree of pictures in all formats that TensorFlow writes, a text and a damaged picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), "uint8")
    for path, content in {
        "photos/a.jpg": tf.io.encode_jpeg(pixels[0]),
        "photos/more/b.PNG": tf.io.encode_png(pixels[1]),
        "photos/more/deep/c.jpeg": tf.io.encode_jpeg(pixels[2]),
        "photos/notes.txt": tf.constant(b"not a picture"),
        "broken.png": tf.strings.substr(tf.io.encode_png(pixels[0]), 0, 900),
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content.numpy())
    return tmp_path / "photos"


@pytest.mark.usefixtures("restored_once")
class TestPredict:
    def test_names_of_files_cannot_steer_the_terminal(self, run, pictures):
        for kind in ("a.jpg", "notes.txt"):
            (pictures / kind).rename(pictures / f"\x1b[2J\n{kind}")
        code, out, err = run("predict", *pictures.iterdir(), "--weights", FILE)
        assert code == 1
        assert "/photos/?[2J?a.jpg\n" in out
        assert "/photos/?[2J?notes.txt: " in err
        assert "\x1b" not in out + err
        assert run("info", "\x1b[2J.pt") == (
            1,
            "",
            "error: There is no weights file at this path. Received: '\\x1b[2J.pt'\n",
        )
        _, _, err = run("predict", "\x1b[2J.jpg", "--weights", FILE)
        assert err == "error: No image files found. Received: ?[2J.jpg\n"

    def test_same_as_the_model(self, run, pictures):
        code, out, _ = run("predict", "photos/a.jpg", "--weights", FILE, "--json", "--top", 10)
        assert code == 0
        ((path, predictions),) = [(row["path"], row["predictions"]) for row in json.loads(out)]
        assert path == "photos/a.jpg"
        model = classifier(weights=FILE, classifier_activation="softmax")
        expected = np.asarray(model(keras_cnv2.load_image(pictures / "a.jpg")[None]))[0]
        received = {row["name"]: row["probability"] for row in predictions}
        assert [row["probability"] for row in predictions] == sorted(received.values(), reverse=True)
        np.testing.assert_allclose([received[f"class {i}"] for i in range(10)], expected, rtol=1e-4)

    @pytest.mark.parametrize(
        ("arguments", "found"),
        [
            (["photos"], ["photos/a.jpg", "photos/more/b.PNG", "photos/more/deep/c.jpeg"]),
            (["photos/**/*.jp*g"], ["photos/a.jpg", "photos/more/deep/c.jpeg"]),
            (["photos/m*"], ["photos/more/b.PNG", "photos/more/deep/c.jpeg"]),
            (["photos/more/b.PNG", "photos/a.jpg"], ["photos/more/b.PNG", "photos/a.jpg"]),
        ],
    )
    def test_files_folders_and_globs(self, run, pictures, arguments, found):
        code, out, _ = run("predict", *arguments, "--weights", FILE, "--json")
        assert code == 0
        assert [row["path"] for row in json.loads(out)] == found
        assert all(len(row["predictions"]) == 5 for row in json.loads(out))

    def test_any_file_name(self, run, pictures):
        name = os.fsdecode(b"photos/\xc3\xbc \xff.jpg")  # the last is no text
        shutil.copy(pictures / "a.jpg", name)
        _, out, _ = run("predict", name, "--weights", FILE, "--json")
        assert [row["path"] for row in json.loads(out)] == [name]
        _, out, _ = run("predict", name, "--weights", FILE)
        assert out.splitlines()[0] == "photos/ü ?.jpg"

    def test_more_than_a_batch(self, run, pictures):
        for i in range(20):
            shutil.copy(pictures / "a.jpg", pictures / f"copy{i:02}.jpg")
        (pictures / "copy05.jpg").write_bytes(b"damaged")
        code, out, err = run("predict", "photos/c*.jpg", "photos/a.jpg", "--weights", FILE, "--json")
        rows = json.loads(out)
        assert code == 1
        assert err.count("error: ") == 1
        assert "copy05.jpg" in err
        assert len(rows) == 20
        for row in rows:  # all are the same picture
            assert row["predictions"] == [
                {"name": other["name"], "probability": pytest.approx(other["probability"], rel=1e-4)}
                for other in rows[0]["predictions"]
            ]

    def test_what_is_no_picture_is_reported_and_the_others_go_on(self, run, pictures):
        arguments = ("photos/notes.txt", "broken.png", "none.jpg", "no*thing", "photos/a.jpg")
        code, out, err = run("predict", *arguments, "--weights", FILE, "--json")
        assert code == 1
        assert [row["path"] for row in json.loads(out)] == ["photos/a.jpg"]
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert [line.split(": ")[1] for line in lines] == list(arguments[:4])

    def test_table(self, run, pictures):
        code, out, err = run("predict", "photos", "--weights", FILE, "--top", 2)
        lines = out.splitlines()
        assert code == 0
        assert [line for line in lines if not line.startswith(" ")] == [
            "photos/a.jpg",
            "photos/more/b.PNG",
            "photos/more/deep/c.jpeg",
        ]
        assert len(lines) == 9
        assert lines[1].split()[1] == "%"
        assert "class" in lines[1]

    def test_file_settles_names_and_preprocessing(self, run, pictures):
        model = classifier(
            weights=FILE, class_names=NAMES, image_size=96, resize="squash", classifier_activation="softmax"
        )
        keras_cnv2.save_checkpoint(model, "own.safetensors", "timm")
        model.save("own.keras")
        image = keras_cnv2.load_image(pictures / "a.jpg", 96, "squash")
        expected = keras_cnv2.decode_predictions(model(image[None]), top=3, class_names=NAMES)[0]
        for file in ("own.safetensors", "own.keras"):
            _, out, _ = run("predict", "photos/a.jpg", "--weights", file, "--json", "--top", 3)
            predictions = json.loads(out)[0]["predictions"]
            assert [row["name"] for row in predictions] == [name for name, _ in expected]
            np.testing.assert_allclose([row["probability"] for row in predictions], [p for _, p in expected], rtol=1e-4)

    def test_numbers_are_no_probabilities(self, run, pictures):
        """A model of logits, or of an age, gives what it gives."""
        model = classifier(weights=FILE, classifier_activation=None)
        model.save("logits.keras")
        code, out, _ = run("predict", "photos/a.jpg", "--weights", "logits.keras", "--json", "--top", 10)
        image = keras_cnv2.load_image(pictures / "a.jpg")
        expected = sorted(np.asarray(model(image[None]))[0], reverse=True)
        assert code == 0
        received = [row["logit"] for row in json.loads(out)[0]["predictions"]]
        np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-5)
        _, out, _ = run("predict", "photos/a.jpg", "--weights", "logits.keras", "--top", 1)
        assert "%" not in out
        assert f"{expected[0]:.4g}" in out

    def test_head_of_the_users_and_own_normalisation(self, run, pictures):
        encoder = keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), include_preprocessing=False)
        head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="sigmoid")]
        model = keras.Sequential([encoder, *head])
        model.save("head.keras")
        Path("names.txt").write_text("cat\ndog\nelk\n")
        arguments = ("predict", "photos/a.jpg", "--weights", "head.keras", "--json", "--class-names", "names.txt")
        code, out, _ = run(*arguments)
        image = keras_cnv2.preprocess_input(keras_cnv2.load_image(pictures / "a.jpg"))
        expected = dict(zip(("cat", "dog", "elk"), np.asarray(model(image[None]))[0].tolist()))
        assert code == 0
        received = {row["name"]: row["probability"] for row in json.loads(out)[0]["predictions"]}
        assert received == pytest.approx(expected, rel=1e-3)
        Path("names.txt").write_bytes(b"\xff\xfe")
        assert "text file (UTF-8), one per line. Received: names.txt" in run(*arguments)[2]
        code, *_ = run("convert", "head.keras", "encoder.safetensors")
        assert code == 0
        again = restore_model("encoder.safetensors")
        assert not again.include_preprocessing
        assert unchanged(again, snapshot(encoder))

    def test_outputs_that_are_not_finite(self, run, pictures):
        model = classifier(classifier_activation="softmax")
        model.get_layer("head").bias.assign([np.nan] * 10)
        model.save("m.keras")
        code, out, err = run("predict", "photos/a.jpg", "--weights", "m.keras", "--json")
        assert (code, out) == (1, "")
        assert "error: Probabilities must be numbers in 0..1" in err

    def test_thousand_classes_without_names_are_imagenets(self, run, pictures):
        model = keras_cnv2.ConvNeXtV2((1, 1, 1, 1), (4, 4, 4, 4))
        keras_cnv2.save_checkpoint(model, "m.safetensors")
        _, out, _ = run("predict", "photos/a.jpg", "--weights", "m.safetensors", "--json", "--top", 1000)
        names = {row["name"] for row in json.loads(out)[0]["predictions"]}
        assert {"tench", "goldfish"} < names

    def test_how_pictures_are_read(self, run, pictures):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(pictures / "a.jpg").rotate(-90, expand=True).save("turned.png", exif=exif)

        def probabilities(*options):
            code, out, error = run("predict", "turned.png", "--weights", FILE, "--json", "--top", 10, *options)
            return code, error, [row["probability"] for each in json.loads(out) for row in each["predictions"]]

        seen, stored = probabilities()[2], probabilities("--exif-orientation", "false")[2]
        assert max(map(abs, np.subtract(seen, stored))) > 1e-6
        assert probabilities("--exif-orientation", "true", "--max-pixels", 100_000)[2] == seen
        code, error, _ = probabilities("--max-pixels", 1999)
        assert (code, "at most 1999 pixels" in error) == (1, True)
        assert run("predict", "turned.png", "--exif-orientation", "perhaps")[0] == 2

    def test_grey_pictures(self, run, pictures):
        model = classifier(input_shape=(32, 32, 1), stem_stride=1, classifier_activation="softmax", resize="squash")
        model.save("grey.keras")
        _, out, _ = run("predict", "photos/a.jpg", "--weights", "grey.keras", "--json", "--top", 1)
        image = keras_cnv2.load_image(pictures / "a.jpg", 32, "squash")
        grey = tf.image.rgb_to_grayscale(image)
        expected = float(np.max(model(grey[None])))
        np.testing.assert_allclose(json.loads(out)[0]["predictions"][0]["probability"], expected, rtol=1e-3)

    @pytest.mark.slow
    def test_download_keeps_standard_output_clean(self, pictures):
        """The command as a user runs it, with a hub on this machine: licence and progress go to standard error."""
        model = keras_cnv2.ConvNeXtV2Atto()
        row = find_checkpoint("imagenet", "atto")
        content = safetensors.numpy.save(keras_cnv2.state_dict(model, "timm"))
        with HubServer({(row.repository, row.file): content}).running() as server:
            hub = {"HF_ENDPOINT": server.url, "HF_HOME": str(pictures.parent / "home"), "no_proxy": "127.0.0.1"}
            process = subprocess.run(
                [sys.executable, "-c", COMMAND, "predict", "photos/a.jpg", "--model", "atto", "--json"],
                env={**os.environ, **hub, "PYTHONPATH": str(ROOT)},
                cwd=pictures.parent,
                capture_output=True,
                text=True,
            )
        assert process.returncode == 0, process.stderr
        assert process.stderr.count("CC BY-NC 4.0") == 1
        image = keras_cnv2.load_image(pictures / "a.jpg")
        ((name, probability),) = keras_cnv2.decode_predictions(model(image[None]), top=1)[0]
        first = json.loads(process.stdout)[0]["predictions"][0]
        assert first == {"name": name, "probability": pytest.approx(probability, rel=1e-4)}

    def test_empty_folder(self, run, tmp_path):
        (tmp_path / "empty").mkdir()
        code, out, err = run("predict", "empty", "--weights", FILE, "--json")
        assert (code, out) == (1, "")
        assert "error: No image files found. Received: empty" in err

    def test_pictures_come_before_downloads(self, run, monkeypatch):
        monkeypatch.setattr("keras_cnv2.commands.main.restore_model", lambda *_: pytest.fail("downloads"))
        assert "No image files found" in run("predict", "none*", "--model", "huge")[2]

    @pytest.mark.parametrize("size", [[], ["--model", "tiny"]])
    @pytest.mark.parametrize("name", ["timm_fcmae.safetensors", "official_fcmae_sparse.pt"])
    def test_encoder(self, run, pictures, name, size):
        code, out, err = run("predict", "photos", "--weights", FILES / name, "--json", *size)
        assert (code, out) == (1, "")
        assert "error: These weights have no classes" in err

    def test_other_channels(self, run, pictures):
        classifier(input_shape=(None, None, 4)).save("m.keras")
        code, _, err = run("predict", "photos", "--weights", "m.keras")
        assert code == 1
        assert "error: Image files have one or three channels" in err

    def test_names_do_not_steer_the_terminal(self, run, pictures):
        keras_cnv2.save_checkpoint(classifier(class_names=["\x1b[2J"] * 10), "m.safetensors")
        for command in (["predict", "photos/a.jpg", "--weights"], ["info"]):
            _, out, _ = run(*command, "m.safetensors")
            assert "\x1b" not in out
            assert "?[2J" in out

    def test_folder_called_like_a_picture(self, run, pictures):
        (pictures / "odd.jpg").mkdir()
        assert run("predict", "photos", "--weights", FILE)[0] == 0

    def test_impossible_arguments(self, run, pictures):
        code, out, err = run("predict", "", "x" * 5000, "photos/a.jpg", "--weights", FILE, "--json")
        assert code == 1
        assert err.count("error: ") == 2
        assert [row["path"] for row in json.loads(out)] == ["photos/a.jpg"]

    def test_other_size(self, run, pictures):
        code, _, err = run("predict", "photos", "--model", "atto", "--weights", FILE)
        assert code == 1
        assert "Received: --model atto" in err

    @pytest.mark.parametrize("top", ["0", "-1", "x", "²"])
    def test_top(self, run, top):
        code, _, err = run("predict", "a.jpg", "--weights", FILE, f"--top={top}")
        assert code == 2
        assert f"Received: {top}" in err

    def test_unknown_weights(self, run, pictures):
        code, out, err = run("predict", "photos", "--weights", "nope")
        assert (code, out) == (1, "")
        assert err.startswith("error: No published weights of this name, and no such folder.")

    def test_ambiguous_tag(self, run, pictures):
        code, _, err = run("predict", "photos", "--weights", "fcmae_ft_in22k_in1k_384")
        assert code == 1
        assert "convnextv2_nano.fcmae_ft_in22k_in1k_384, convnextv2_tiny.fcmae_ft_in22k_in1k_384, " in err
