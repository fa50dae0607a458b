import pytest

from tests.training.data.samples import write


@pytest.fixture
def folder(tmp_path):
    """Ten training pictures of two classes, three of validation."""
    for number in range(10):
        write(tmp_path / "train" / "ab"[number % 2] / f"{number}.jpg", number)
    for number in range(3):
        write(tmp_path / "val" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path
