"""What a user sees of the commands before anything is trained."""

import dataclasses
import json

import pytest

from training.__main__ import main
from training.commands.weights import weights_of
from training.recipes.images import FINETUNING


@pytest.mark.parametrize("state", ["finished", "not finished"])
def test_weights_of_a_run_without_encoder(tmp_path, state):
    (tmp_path / "config.json").write_text('{"kind": "Evaluation"}')
    if state == "finished":
        (tmp_path / "metrics.json").write_text("{}")
    message = (
        "a finished run that has fcmae.keras or classifier.keras or segmenter.keras or detector.keras. "
        f"Received: .*a run of Evaluation that is {state}"
    )
    with pytest.raises(SystemExit, match=message):
        main(["finetune", "--data", "digits", "--weights", str(tmp_path), "--runs", str(tmp_path / "runs")])


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("Pretraining", "fcmae.keras"),
        ("Finetuning", "classifier.keras"),
        ("Segmentation", "segmenter.keras"),
        ("Detection", "detector.keras"),
    ],
)
def test_weights_of_a_run_of_any_kind(tmp_path, kind, model):
    (tmp_path / "config.json").write_text(json.dumps({"kind": kind}))
    (tmp_path / model).touch()
    assert weights_of(dataclasses.replace(FINETUNING["quickstart"], weights=str(tmp_path))) == str(tmp_path / model)
