import pytest

import keras_cnv2
from keras_cnv2.commands.main import main
from keras_cnv2.pretrained.push import push
from tests.checkpoints.hub_server import COMMIT, HubServer
from tests.export.small import shared_classifier

pytestmark = pytest.mark.lowest  # releases of the hub's library ask different things

TOKEN = "hf_of_a_test"


@pytest.fixture
def server(monkeypatch, tmp_path):
    with HubServer({}).running() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        # Its protocol for large files has servers of its own; the other one is that of Git LFS.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def folder(tmp_path):
    keras_cnv2.save_pretrained(shared_classifier(), tmp_path / "it")
    (tmp_path / "it" / ".secret").touch()
    return tmp_path / "it"


def test_files_arrive(server, folder, capsys):
    assert main(["push", str(folder), "owner/name", "--private"]) == 0
    assert f"owner/name/commit/{COMMIT}" in capsys.readouterr().out
    names = {"README.md", "config.json", "preprocessor_config.json", "model.safetensors"}
    assert server.files == {("owner/name", name): (folder / name).read_bytes() for name in names}
    (created,) = server.created
    assert (created["organization"], created["name"]) == ("owner", "name")
    assert created.get("private") or created["visibility"] == "private"  # releases of the library differ
    assert server.tokens == {TOKEN}


@pytest.mark.parametrize(
    ("fault", "message"), [({"refuses": 403}, "your token does not allow"), ({"refuses": 400}, "run it again")]
)
def test_faults(server, folder, fault, message):
    vars(server).update(fault)
    with pytest.raises(OSError, match=f"Could not upload to owner/name.*{message}.*Received: .*Error"):
        push(folder, "owner/name")
    assert server.files == {}


def test_no_token(server, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(OSError, match="hf auth login.*HF_TOKEN. Received: none"):
        push(folder, "owner/name")
    assert server.requests == []


@pytest.mark.parametrize("repository", ["name", "a/b/c", "owner/", "https://hub/owner/name", "../name"])
def test_name_of_the_repository(server, folder, repository):
    with pytest.raises(ValueError, match="OWNER/NAME. Received: "):
        push(folder, repository)


def test_other_folders(server, tmp_path):
    (tmp_path / "README.md").touch()
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="no folder of `keras_cnv2.save_pretrained`.*Received: "):
            push(folder, "owner/name")
    assert server.requests == []
