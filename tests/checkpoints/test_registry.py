from dataclasses import replace
from pathlib import Path

import pytest

from keras_cnv2 import CheckpointError
from keras_cnv2.checkpoints import registry
from keras_cnv2.checkpoints.registry import CHECKPOINTS, OFFICIAL, OURS, find_checkpoint, find_file
from keras_cnv2.sizes import SIZES


def test_there_are_26():
    assert len(OFFICIAL) == len({row.name for row in OFFICIAL}) == len({row.official_file for row in OFFICIAL}) == 26
    assert {row.size for row in OFFICIAL if row.tag == "fcmae"} == SIZES.keys()
    assert {row.size for row in OFFICIAL if row.tag == "fcmae_ft_in1k"} == SIZES.keys()
    assert sum("in22k" in row.tag for row in OFFICIAL) == 10
    assert len({row.name for row in CHECKPOINTS}) == len(OFFICIAL) + len(OURS)


@pytest.mark.parametrize("row", OFFICIAL, ids=lambda row: row.name)
def test_rows_agree_with_their_names(row):
    """Tags and official file names were given by others: what the row says must be what they say."""
    side = 512 if row.tag.endswith("512") else 384 if row.tag.endswith("384") else 224
    assert row.image_size == side
    assert row.resize == ("crop" if side == 224 else "squash")
    data = "22k" if "in22k" in row.tag else "1k"
    kind = "fcmae" if row.tag == "fcmae" else "ema"
    assert row.official_file == f"convnextv2_{row.size}_{data}_{side}_{kind}.pt"
    assert row.repository == f"timm/convnextv2_{row.size}.{row.tag}"
    assert (row.top1 is None) == (row.logits is None) == (not row.has_head) == (kind == "fcmae")
    assert row.licence == "CC BY-NC 4.0"
    assert ("class_names" in row.metadata) == row.has_head


def test_accuracy_grows_with_the_size():
    ft = [row.top1 for row in OFFICIAL if row.tag == "fcmae_ft_in1k"]
    assert ft == sorted(ft) == [76.7, 78.5, 80.3, 81.9, 83.0, 84.9, 85.8, 86.3]


class TestFind:
    def test_tag_of_a_size(self):
        assert find_checkpoint("fcmae_ft_in22k_in1k_384", "tiny").name == "convnextv2_tiny.fcmae_ft_in22k_in1k_384"

    def test_imagenet(self):
        assert find_checkpoint("imagenet", "nano").name == "convnextv2_nano.fcmae_ft_in1k"

    def test_full_name(self):
        assert find_checkpoint("convnextv2_base.fcmae").size == "base"

    def test_tag_that_only_one_size_has(self):
        assert find_checkpoint("fcmae_ft_in22k_in1k_512").size == "huge"

    def test_tag_of_several_sizes(self):
        with pytest.raises(CheckpointError, match=r"sizes .*; give a full name: convnextv2_nano.fcmae_ft_in22k_in1k, "):
            find_checkpoint("fcmae_ft_in22k_in1k")

    @pytest.mark.parametrize("weights", ["imagenet21k", "", None, 3, "convnextv2_base.fcmae"])
    def test_unknown(self, weights):
        with pytest.raises(CheckpointError, match=rf"size 'atto'.*, cifar10; .*\.pt.*Received: {weights!r}"):
            find_checkpoint(weights, "atto")

    def test_revision(self, monkeypatch):
        row = find_checkpoint("convnextv2_base.fcmae")
        assert find_checkpoint("convnextv2_base.fcmae@refs/pr/1") == replace(row, revision="refs/pr/1")
        assert find_checkpoint("imagenet@v1.0-a", "nano").tag == "fcmae_ft_in1k"
        pinned = replace(row, revision="a" * 40, sha256="b" * 64)
        monkeypatch.setattr(registry, "CHECKPOINTS", (pinned,))
        assert find_checkpoint("fcmae") == find_checkpoint(f"fcmae@{'a' * 40}") == pinned
        assert find_checkpoint("fcmae@main") == replace(row, revision="main")  # another file has another checksum

    @pytest.mark.parametrize("revision", ["", "/", "../x", "a/../b", "a//b", "a b", ".git", "a@b", "a\n"])
    def test_no_revision(self, revision):
        with pytest.raises(CheckpointError, match=r"A revision is a commit, a tag or a branch"):
            find_checkpoint(f"convnextv2_base.fcmae@{revision}")

    def test_official_file(self):
        row = find_file(Path("somewhere/convnextv2_huge_22k_512_ema.pt"))
        assert (row.size, row.image_size) == ("huge", 512)
        assert find_file(Path("convnextv2_huge.fcmae_ft_in22k_in1k_512.safetensors")) is row
        assert find_file(Path("other.pt")) is None
