"""What docs/pretrain.md says is so."""

import json
import re

import numpy as np
import pytest

from keras_cnv2.fcmae.masking import count_visible
from tests.docs.pages import (
    PAGES,
    README,
    ROWS,
    TINY,
    blocks,
    commands,
    save_picture,
    table,
)
from training.__main__ import main
from training.recipes.images import PRETRAINING


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
