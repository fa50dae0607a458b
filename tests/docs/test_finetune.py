"""What docs/finetune.md says is so."""

import re

import numpy as np
import pytest
from matplotlib.image import imread

from keras_cnv2.checkpoints.registry import find_checkpoint
from keras_cnv2.commands import main as library_command
from keras_cnv2_command import TRAINING
from tests.docs.pages import PAGES, TINY, blocks, commands, save_picture, table
from training.__main__ import main
from training.recipes.images import FINETUNING

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
