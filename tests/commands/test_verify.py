"""The check of published logits, on a local checkpoint whose logits PyTorch computed (tests/golden/make_verify.py)."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from keras_cnv2 import CheckpointError
from keras_cnv2.commands.main import main
from keras_cnv2.commands.verify import Comparison, verify
from keras_cnv2.restore import restore_model
from tests import golden
from tests.checkpoints.samples import FILES

FILE = str(FILES / "official_dense.pt")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(golden.load("verify")["picture"].tobytes())
    return str(path)


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_says_which_resizing_matches(picture, resize):
    logits = tuple(map(float, golden.load("verify")[resize][:5]))
    comparisons = verify(FILE, picture, logits)
    assert [(c.image_size, c.resize) for c in comparisons] == [(224, "crop"), (224, "squash")]
    assert [c.resize for c in comparisons if c.matches] == [resize]
    assert min(c.difference for c in comparisons) < 2e-4


@pytest.mark.parametrize("off", [0.002, -0.002])
def test_logits_differ_in_either_direction(off):
    comparison = Comparison("a", 224, "crop", (1.0, 2.0), (1.0, 2.0 + off), {})
    assert comparison.difference == pytest.approx(0.002)
    assert not comparison.matches


def test_says_which_published_file_it_was(picture, monkeypatch):
    """What a row of the registry needs to have this file and no other."""
    model = restore_model(FILE, classifier_activation="linear")
    model.pretrained = {"repository": "timm/x", "file": "model.safetensors", "commit": "a" * 40, "sha256": "b" * 64}
    monkeypatch.setattr("keras_cnv2.commands.verify.restore_model", lambda *args, **kwargs: model)
    comparisons = verify("convnextv2_atto.fcmae_ft_in1k", picture, (1.0,))
    assert {tuple(c.origin.items()) for c in comparisons} == {(("revision", "a" * 40), ("sha256", "b" * 64))}


def test_no_published_logits(picture):
    with pytest.raises(CheckpointError, match="no published logits.*official_dense.pt"):
        verify(FILE, picture)


def test_encoder_has_no_logits(picture):
    with pytest.raises(CheckpointError, match="no published logits"):
        verify("convnextv2_atto.fcmae", picture)


@pytest.mark.parametrize("name", ["official_fcmae_sparse.pt", "official_fcmae_dense.pt"])
def test_encoder_file(picture, name):
    with pytest.raises(ValueError, match="have no classes"):
        verify(str(FILES / name), picture, (1.0,))


def test_more_logits_than_classes(picture):
    with pytest.raises(ValueError, match="has 10 classes. Received: 11 logits"):
        verify(FILE, picture, (0.0,) * 11)


class TestCommand:
    def run(self, capsys, picture, logits):
        code = main(["verify", picture, "--weights", FILE, "--logits", *map(str, logits)])
        output = capsys.readouterr()
        return code, output.out.splitlines(), output.err

    def test_match(self, capsys, picture):
        code, lines, errors = self.run(capsys, picture, golden.load("verify")["crop"][:5])
        assert code == 0
        digest = hashlib.sha256(Path(FILE).read_bytes()).hexdigest()
        assert lines[4:] == ["", f"official_dense.pt: sha256='{digest}'"]
        assert lines[2].startswith("| official_dense.pt | 224 crop | -1.4544")
        assert [line.split("|")[-2].strip() for line in lines[2:4]] == ["matches", "differs"]
        assert "1 of 1 match within 0.001" in errors

    def test_no_match(self, capsys, picture):
        code, lines, errors = self.run(capsys, picture, golden.load("verify")["crop"][:5] + np.float32(0.01))
        assert code == 1
        assert [line.split("|")[-2].strip() for line in lines[2:4]] == ["differs", "differs"]
        assert "0 of 1 match" in errors

    def test_no_picture(self, capsys, tmp_path):
        assert main(["verify", str(tmp_path / "none.jpg"), "--weights", FILE, "--logits", "1"]) == 1
        assert "error: " in capsys.readouterr().err

    def test_others_go_on(self, capsys, picture):
        logits = map(str, golden.load("verify")["crop"][:5])
        broken = str(FILES / "truncated.pt")
        code = main(["verify", picture, "--weights", broken, FILE, "--logits", *logits])
        output = capsys.readouterr()
        assert code == 1
        assert output.err.count("error: ") == 1
        assert "| matches |" in output.out
        assert "1 of 2 match" in output.err
