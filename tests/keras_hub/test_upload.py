"""`keras_hub.upload_preset` and `from_preset("hf://...")`, against a hub on this machine."""

import base64
import json
import threading
from http.server import ThreadingHTTPServer
from types import SimpleNamespace

import keras_hub
import numpy as np
import pytest
from huggingface_hub import constants, hf_api

from keras_cnv2.keras_hub import ConvNeXtV2ImageClassifier, ConvNeXtV2ImageClassifierPreprocessor
from tests.checkpoints.hub_server import _Handler
from tests.keras_hub.small import classifier
from tests.segmentation.small import with_values


class Handler(_Handler):
    """Takes files, too: each comes within the request that commits it."""

    def do_POST(self):
        hub = self.server.hub
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        repository = "/".join(self.path.split("/")[3:5])
        if self.path == "/api/repos/create":
            given = json.loads(body)
            repository = "/".join(filter(None, (given.get("organization"), given["name"])))
            answer = {"url": f"{hub.url}/{repository}"}
        elif "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            answer = {"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[repository, line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {"commitUrl": f"{hub.url}/{repository}/commit/1", "commitOid": "1"}
        else:
            answer = {"errors": [], "warnings": []}  # of a card
        self.send_response(200)
        content = json.dumps(answer).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub without repositories, as `huggingface_hub` finds it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    server.hub = SimpleNamespace(
        files={}, url=url, requests=[], down=False, refuses=None, headers={}, strange=False, broken_gets=0
    )
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hf_api.api, "endpoint", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_uploaded_and_downloaded(hub, tmp_path):
    made = with_values(classifier(preprocessor=ConvNeXtV2ImageClassifierPreprocessor(), compile=False))
    folder = str(tmp_path / "preset")
    made.save_to_preset(folder)
    keras_hub.upload_preset("hf://owner/name", folder)
    sent = {file for repository, file in hub.files if repository == "owner/name"}
    assert sent >= {"config.json", "model.weights.h5", "task.json", "task.weights.h5", "preprocessor.json", "README.md"}
    assert b"ConvNeXtV2" in hub.files["owner/name", "README.md"]
    again = keras_hub.models.ImageClassifier.from_preset("hf://owner/name")
    assert type(again) is ConvNeXtV2ImageClassifier
    for theirs, ours in zip(again.get_weights(), made.get_weights()):
        np.testing.assert_array_equal(theirs, ours)
