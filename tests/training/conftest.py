import pytest

from tests.training.data.samples import quick_crop, quick_decode


@pytest.fixture
def quick_pictures(monkeypatch):
    """Pictures are decoded and cropped in a few operations: the real ones, which tests/images/test_pictures.py and
    test_crops.py have, take a second to trace each time."""
    monkeypatch.setattr("training.data.images.task.random_crop", quick_crop)
    for module in ("boxes.augment", "scenes.task"):
        monkeypatch.setattr(f"training.data.{module}.decode", quick_decode)
    monkeypatch.setattr("keras_cnv2.images.pictures.decode", quick_decode)
