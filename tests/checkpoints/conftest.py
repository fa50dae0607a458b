import pytest

from tests.checkpoints.torch_files import write_legacy, write_zip


@pytest.fixture(params=[write_zip, write_legacy])
def write(request, tmp_path):
    """Writes a file of either kind: `write(contents, storages)` returns its path."""
    return lambda *args, **kwargs: request.param(tmp_path / "model.pt", *args, **kwargs)
