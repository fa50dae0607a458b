"""What docs/start.md, finetune.md, pretrain.md, weights.md and first_look.ipynb say is so."""

import json
import pydoc
import re
import shlex
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
from matplotlib.image import imread
from PIL import Image

import keras_cnv2
from keras_cnv2.checkpoints.registry import CHECKPOINTS, find_checkpoint
from keras_cnv2.commands import main as library_command
from keras_cnv2.fcmae.masking import count_visible
from keras_cnv2_command import TRAINING
from tests.checkpoints.samples import FILES, SMALL
from training.__main__ import main
from training.commands import evaluate, finetune, options, pretrain, quickstart, recipes, report
from training.recipes.images import FINETUNING, PRETRAINING

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
NOTEBOOK = "first_look.ipynb"
PAGES = {name: (DOCS / name).read_text() for name in ("start.md", "finetune.md", "pretrain.md", "weights.md")}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
ROWS = {"pretrain": PRETRAINING, "finetune": FINETUNING}
TINY = "--depths 1,1,1,1 --dims 4,6,8,10"


def blocks(page, language):
    """The blocks of code in one language."""
    return [code for found, code in BLOCK.findall(PAGES[page]) if found == language]


def in_text(page):
    """What stands as code in the text around the blocks."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", PAGES[page]))


def lines_of(page):
    """The command lines of the blocks."""
    return "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()


def commands(page, start):
    """The arguments of the commands that begin so, in the blocks and, where they have arguments, in the text."""
    lines = lines_of(page) + [code for code in in_text(page) if code.startswith(start) and len(code.split()) > 3]
    return [shlex.split(line, comments=True)[len(start.split()) :] for line in lines if line.startswith(start)]


def table(page, start):
    """The cells of the table whose first line starts so."""
    rows = PAGES[page][PAGES[page].index(start) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.fixture
def parsed(monkeypatch):
    """What the commands of `training` are told, in place of running them."""
    seen = []
    for module in (quickstart, pretrain, finetune, evaluate, report, recipes):
        monkeypatch.setattr(module, "main", seen.append)
    return seen


@pytest.mark.parametrize("page", PAGES)
class TestPages:
    def test_links(self, page):
        links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]) if not link.startswith("https://")]
        assert links
        for link in links:
            assert (DOCS / link).is_file(), link

    def test_names(self, page):
        for name in re.findall(r"keras_cnv2(?:\.\w+)+", PAGES[page]):
            assert pydoc.locate(name) is not None, name

    def test_blocks(self, page):
        assert PAGES[page].count("```") == 2 * len(BLOCK.findall(PAGES[page]))
        assert {language for language, _ in BLOCK.findall(PAGES[page])} <= {"bash", "python", ""}
        for code in blocks(page, "python"):
            compile(code, page, "exec")
        for line in lines_of(page):
            assert line.startswith(("pip install -e ", "keras-cnv2 ")), line

    def test_commands_of_training(self, page, parsed):
        """They parse, and the values of their recipes are possible."""
        lines = [line for line in commands(page, "keras-cnv2") if line[0] in TRAINING]
        assert lines or page == "weights.md"
        for line in lines:
            if "--help" in line:
                with pytest.raises(SystemExit, match="^0$"):
                    main(line)
                continue
            main(line)
            if line[0] in ROWS:
                options.chosen_recipe(parsed[-1], ROWS[line[0]])

    def test_commands_of_the_library(self, page):
        lines = [line for line in commands(page, "keras-cnv2") if line[0] not in TRAINING]
        assert lines or page == "pretrain.md"
        for line in lines:
            library_command._parser().parse_args(line)

    def test_options_in_the_text(self, page, capsys):
        known = {"--no-deps"}  # pip's
        with pytest.raises(SystemExit):
            library_command._parser().parse_args(["predict", "--help"])
        known |= {*re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)}
        for command in ("pretrain", "finetune", "recipes"):
            with pytest.raises(SystemExit):
                main([command, "--help"])
            known |= {*re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)}
        assert {option for code in in_text(page) for option in re.findall(r"(?<!\S)--[a-z-]+", code)} <= known

    def test_published_weights(self, page):
        """They exist, and where they have to be fetched the line says so."""
        known = {name: row for row in CHECKPOINTS for name in (row.tag, row.name)}
        for line in lines_of(page):
            names = re.findall(r"--weights (?!none|runs/)(\S+)|(convnextv2_\w+\.\w+)", line)
            rows = [known[name] for pair in names for name in pair if name]
            rows += [known[FINETUNING["images"].weights]] * ("finetune" in line and "--weights" not in line)
            assert ("needs the network once" in line) == any(row.tag.startswith("fcmae") for row in rows), line


class TestStart:
    def test_example_is_the_readme_s(self):
        """Whose test runs it, with random weights in place of the download."""
        (example,) = blocks("start.md", "python")
        assert f"```python\n{example.replace('  # from the Hugging Face hub, once', '')}```" in README

    def test_what_a_run_holds(self):
        """As the quickstart's own tests have it."""
        tests = (ROOT / "tests" / "training" / "commands" / "test_quickstart.py").read_text()
        rows = table("start.md", "| in `runs/quickstart`")
        files = [file for row in rows for file in re.findall(r"`([\w.]+)`", " ".join(row))]
        assert files
        for file in files:
            assert f'"{file}"' in tests, file

    def test_time_is_the_readme_s(self):
        assert "three minutes on two CPU cores" in PAGES["start.md"]
        assert "three minutes on two CPU cores" in README

    def test_it_leads_to_all_pages(self):
        others = {"dense.md", "distribute.md", "serving.md", "litert.md", "speed.md", "faq.md", NOTEBOOK}
        assert {*re.findall(r"\]\(([\w.]+)\)", PAGES["start.md"])} >= PAGES.keys() - {"start.md"} | others


def save_picture(path, seed, size=(50, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*reversed(size), 3), "uint8")
    Image.fromarray(pixels).save(path)


OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
BOXES = {
    "a": [
        *(("RBC", i, 5, i + 10, 20) for i in range(21)),
        ("WBC", 30, 20, 55, 45),  # beyond the right and the lower edge
        ("Platelets", 0, 10, 12, 20),
        ("Platelets", 10, 10, 17, 30),  # too narrow
    ],
    "b": [("WBC", 4, 4, 30, 30), ("Platelets", 2, 2, 12, 13)],
    "c": [("RBC", 1, 1, 20, 20), ("WBC", 4, 4, 30, 30), ("Platelets", 2, 2, 12, 13)],
}


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A folder in which the first example of finetune.md has run, on three made pictures."""
    folder = tmp_path_factory.mktemp("finetune")
    source = folder / "BCCD_Dataset" / "BCCD"
    for name in ("Annotations", "ImageSets/Main"):
        (source / name).mkdir(parents=True)
    for number, (name, boxes) in enumerate(BOXES.items()):
        save_picture(source / "JPEGImages" / f"{name}.jpg", number)
        objects = "".join(OBJECT.format(*box) for box in boxes)
        (source / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    for split, names in {"train": "a\nb\n", "val": "c\n", "trainval": "a\nb\nc\n"}.items():
        (source / "ImageSets" / "Main" / f"{split}.txt").write_text(names)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(blocks("finetune.md", "python")[0], "finetune.md", "exec"), {})
    return folder


class TestFinetune:
    def test_folder_of_classes(self, cut):
        cells = cut / "cells"
        assert {path.relative_to(cells).as_posix() for path in cells.rglob("*.*")} == {
            *(f"train/RBC/{number}.png" for number in (0, 10, 20)),  # every tenth
            *(f"train/{kind}/{number}.png" for kind in ("WBC", "Platelets") for number in (0, 1)),
            *(f"val/{kind}/0.png" for kind in ("RBC", "WBC", "Platelets")),
        }
        assert imread(cells / "train" / "WBC" / "0.png").shape == (20, 20, 3)
        cell = np.rint(imread(cells / "train" / "RBC" / "10.png") * 255)
        picture = imread(cut / "BCCD_Dataset" / "BCCD" / "JPEGImages" / "a.jpg")
        np.testing.assert_array_equal(cell, picture[5:20, 10:20])

    def test_what_it_says_of_recipes(self):
        images, page = FINETUNING["images"], PAGES["finetune.md"]
        assert (images.model, images.image_size, images.weights) == ("atto", 224, "fcmae_ft_in1k")
        assert (images.head_init, images.validation_share) == (0.001, 0.1)
        paper = [row for name, row in FINETUNING.items() if name.startswith("imagenet_")]
        decays = [row.layer_decay for row in paper]
        assert f"The paper's are {min(decays)} to {max(decays)}." in page
        assert {row.ema for row in paper} == {0.9999, None}

    def test_weights_of_the_example(self):
        row = find_checkpoint("convnextv2_atto.cifar10")
        assert (row.size, row.stem_stride, row.image_size, row.resize) == ("atto", 2, 32, "squash")

    @pytest.mark.slow
    def test_commands_run(self, cut, eagerly, monkeypatch, capsys):
        """In their order, with a tiny model from scratch for a few steps."""
        monkeypatch.chdir(cut)
        for line in [line for line in commands("finetune.md", "keras-cnv2") if line[0] in TRAINING]:
            if line[0] == "finetune" and "cells" in line:
                text, count = re.subn(r"--weights \S+ --model atto", f"--weights none {TINY}", " ".join(line))
                assert count == 1
                line = [*text.split(), "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "4"]
            elif line[0] == "finetune":
                continue  # needs the network
            main(line)
        assert capsys.readouterr().out.count("of 3 images") == 3  # two trainings, an evaluation
        files = {path.name for path in (cut / "runs" / "cells").iterdir()}
        assert {row[0].strip("`") for row in table("finetune.md", "| in `runs/cells`")} <= files
        assert (cut / "runs" / "report.html").is_file()

        for line in commands("finetune.md", "keras-cnv2"):
            if line[0] in ("predict", "export"):
                assert library_command.main(line) == 0
        assert "WBC" in capsys.readouterr().out
        assert (cut / "cells_saved_model" / "saved_model.pb").is_file()

        *lines, last = blocks("finetune.md", "python")[1].splitlines()
        names = {}
        exec("\n".join([*lines, f"named = {last}"]), names)
        assert {name for name, _ in names["named"]} == {"RBC", "WBC", "Platelets"}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders of pretrain.md, with a few small pictures."""
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        save_picture(tmp_path / "photos" / "more" / f"{number}.png", number)
        save_picture(tmp_path / "animals" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    return tmp_path


class TestPretrain:
    def test_patches(self):
        rows = table("pretrain.md", "| `--image-size` | `--stem-stride`")
        assert rows
        for size, stride, patch, grid, visible in rows:
            side = int(size) // int(patch)
            assert (int(patch), int(size)) == (8 * int(stride), side * int(patch))
            assert (grid, int(visible)) == (f"{side} x {side}", count_visible(side**2, 0.6))

    def test_what_it_says_of_recipes(self):
        for rows in ROWS.values():
            assert (rows["images"].model, rows["images"].image_size) == ("atto", 224)
        assert (PRETRAINING["images"].mask_ratio, PRETRAINING["images"].crop_area) == (0.6, (0.2, 1.0))

    def test_figures_are_the_readme_s(self):
        page, readme = (" ".join(text.split()) for text in (PAGES["pretrain.md"], README))
        for figure in ("500 photographs", "atto at 224 x 224, batch 50, `--base-lr 3e-3`", "from 1.005 to 0.660"):
            assert figure in page
            assert figure in readme

    def test_example(self, folders, small_sizes):
        (block,) = blocks("pretrain.md", "python")
        small = block.replace("224", "64").replace("epochs=40", "epochs=1").replace("40 *", "1 *")
        small = re.sub(r"(\.compile\(.*)\)\n", r"\1, run_eagerly=True)\n", small)  # a step: not worth compiling
        assert "run_eagerly" in small
        names = {}
        exec(compile(small, "pretrain.md", "exec"), names)
        assert names["painted"].shape == (6, 64, 64, 3)
        kernels = [model.get_layer("stem_conv").kernel for model in (names["classifier"], names["fcmae"].backbone)]
        np.testing.assert_array_equal(*kernels)

    @pytest.mark.slow
    def test_commands_run(self, folders, eagerly):
        """All that need no network, in their order, with a tiny model for a few steps."""
        small = [*TINY.split(), "--image-size", "64", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "4"]
        for line in commands("pretrain.md", "keras-cnv2"):
            if "fcmae" not in line:
                main([*line, *small] if line[0] in ROWS else line)
        for run in ("photos", "photos-longer"):
            for file in ("fcmae.keras", "reconstructions.png"):
                assert (folders / "runs" / run / file).is_file()
        assert "top1" in json.loads((folders / "runs" / "animals" / "metrics.json").read_text())
        assert (folders / "runs" / "report.html").is_file()


def message(function, *arguments):
    """The `CheckpointError` that a call raises."""
    with pytest.raises(keras_cnv2.CheckpointError) as error:
        function(*arguments)
    return str(error.value)


class TestWeights:
    def test_commands_run(self, tmp_path, monkeypatch, capsys):
        """One after the other, but for the one of a published checkpoint."""
        monkeypatch.chdir(tmp_path)
        shutil.copy(FILES / "official_dense.pt", "checkpoint.pt")
        lines = [line for line in commands("weights.md", "keras-cnv2") if "convnextv2_tiny.fcmae_ft_in1k" not in line]
        assert [line[0] for line in lines[:7]] == ["info"] + ["convert"] * 6
        for line in lines[:7]:
            assert library_command.main(line) == 0, capsys.readouterr().err
        models = [keras_cnv2.ConvNeXtV2(**SMALL, classes=10) for _ in range(2)]
        for model, file in zip(models, ("checkpoint.pt", "model.keras")):
            keras_cnv2.load_checkpoint(model, file)
        for first, last in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(first, last)

    def test_examples(self, tmp_path, small_sizes, monkeypatch):
        monkeypatch.chdir(tmp_path)
        model = keras_cnv2.ConvNeXtV2Atto()
        keras_cnv2.save_checkpoint(model, "checkpoint.safetensors")
        codes = [code for code in blocks("weights.md", "python") if "checkpoint.pt" in code]
        assert codes
        names = {}
        for code in codes:
            exec(compile(code.replace("checkpoint.pt", "checkpoint.safetensors"), "weights.md", "exec"), names)
        assert names["tensors"].keys() == keras_cnv2.state_dict(model, "transformers").keys()
        assert (tmp_path / "model.safetensors").is_file()

    @pytest.mark.slow
    def test_pytorch(self, tmp_path, monkeypatch):
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        monkeypatch.chdir(tmp_path)
        model = keras_cnv2.ConvNeXtV2Atto()
        keras_cnv2.save_checkpoint(model, "hf.safetensors", "transformers")
        (code,) = [code for code in blocks("weights.md", "python") if "transformers import" in code]
        names = {}
        exec(compile(code, "weights.md", "exec"), names)
        kernel = names["theirs"].state_dict()["classifier.weight"].numpy()
        np.testing.assert_array_equal(kernel, np.transpose(model.get_layer("head").kernel))

    def test_errors(self, tmp_path, monkeypatch, capsys):
        """Each message of the table is met, but for those of a lost connection and of HDF5's hanging and crashing.

        Those stand in the code; tests/checkpoints has them.
        """
        monkeypatch.chdir(tmp_path)
        size, smaller = SMALL, {**SMALL, "depths": (1, 1, 1, 1)}
        ten, thousand = (keras_cnv2.ConvNeXtV2(**size, classes=classes) for classes in (10, 1000))
        other = keras_cnv2.ConvNeXtV2(**smaller, classes=10)
        narrow = keras_cnv2.ConvNeXtV2(size["depths"], (4, 6, 8, 10), classes=10)
        encoder = keras_cnv2.ConvNeXtV2Backbone(**size)
        tensors = keras_cnv2.state_dict(encoder)
        keras_cnv2.save_checkpoint(encoder, "encoder.safetensors")
        safetensors.numpy.save_file(
            {name: tensor for name, tensor in tensors.items() if not name.startswith("downsample_layers.0")},
            "part.safetensors",
        )
        keras.Sequential([encoder, keras.layers.GlobalAveragePooling2D()]).save("head.keras")
        ten.save("ten.keras")
        rewrite("head.keras", "mine.keras", b'"module": "keras.layers"', b'"module": "my.layers"')
        rewrite("ten.keras", "other.keras", b'"classes": 10', b'"classes": 11')
        met = [
            message(keras_cnv2.load_checkpoint, model, source)
            for model, source in (
                (ten, keras_cnv2.state_dict(thousand)),
                (ten, keras_cnv2.state_dict(other)),  # missing
                (other, keras_cnv2.state_dict(ten)),  # left over
                (ten, keras_cnv2.state_dict(narrow)),
                (ten, {"layer.weight": np.zeros(3)}),
                (ten, FILES / "truncated.pt"),
                (ten, FILES / "malicious.pt"),
            )
        ]
        met += [message(find_checkpoint, name) for name in ("fcmae_ft", "fcmae")]
        Path("a.jpg").touch()  # is looked at later
        for file in ("part.safetensors", "mine.keras", "other.keras", "encoder.safetensors"):
            assert library_command.main(["predict", "a.jpg", "--weights", file]) == 1
            met.append(capsys.readouterr().err)
        met += [(ROOT / "keras_cnv2" / "checkpoints" / name).read_text() for name in ("hub.py", "read_hdf5.py")]
        quoted = [quote for row in table("weights.md", "| it says") for quote in re.findall(r'"([^"]+)"', row[0])]
        assert quoted
        for quote in quoted:
            pattern = re.escape(quote).replace(r"\.\.\.", ".*").replace("5\\ seconds", ".*seconds")
            assert any(re.search(pattern, text) for text in met), quote


def rewrite(source, target, old, new):
    """A Keras file with another configuration."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            after.writestr(name, content.replace(old, new) if name == "config.json" else content)


class TestNotebook:
    CELLS = json.loads((DOCS / NOTEBOOK).read_text())["cells"]
    TEXT = "\n".join("".join(cell["source"]) for cell in CELLS)

    def test_links_and_names(self):
        for link in re.findall(r"\]\(([^)]+)\)", self.TEXT):
            assert (DOCS / link).is_file(), link
        for name in re.findall(r"keras_cnv2(?:\.\w+)+", self.TEXT):
            assert pydoc.locate(name) is not None, name

    def test_no_outputs_are_kept(self):
        code = [cell for cell in self.CELLS if cell["cell_type"] == "code"]
        assert code
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
