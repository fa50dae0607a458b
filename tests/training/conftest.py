import pytest
from keras import ops

from keras_cnv2.images.orientation import UPRIGHT
from keras_cnv2.images.pictures import Reading
from tests.training.data.samples import quick_check, quick_crop, quick_decode


@pytest.fixture
def quick_pictures(monkeypatch):
    """Pictures are decoded and cropped in a few operations, their headers hardly read: the real ones, which
    tests/images/test_pictures.py and test_crops.py have, take a second in each dataset."""
    monkeypatch.setattr("training.data.images.task.random_crop", quick_crop)
    for module in ("boxes.augment", "scenes.task"):
        monkeypatch.setattr(f"training.data.{module}.decode", quick_decode)
    monkeypatch.setattr("keras_cnv2.images.pictures.decode", quick_decode)
    monkeypatch.setattr(Reading, "orientation", lambda reading, contents: ops.convert_to_tensor(UPRIGHT))
    monkeypatch.setattr(Reading, "checked", quick_check)
