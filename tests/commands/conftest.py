import pytest

from keras_cnv2.commands.main import main


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs the command in a folder of its own; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    # No cache but an empty one.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as stop:  # argparse
            code = stop.code
        return code, *capsys.readouterr()

    return run
