"""A Hugging Face hub on this machine: what `hf_hub_download` and `upload_folder` ask of the real one, and faults at
will."""

import base64
import contextlib
import hashlib
import json
import math
import re
import socket
import struct
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import constants, file_download

LARGE = re.compile(r".*\.(safetensors|keras|onnx)")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ALWAYS = math.inf
# With this, a socket that closes sends a reset in place of the orderly end.
NO_LINGER = struct.pack("ii", 1, 0)


class Request(NamedTuple):
    """One request that the server got.

    Args:
        method: "HEAD", "GET", "POST" or "PUT".
        path: The path in the URL.
        range: Its Range header, or `None`.
    """

    method: str
    path: str
    range: str | None


class HubServer:
    """The hub's files, its faults, and what was asked of it.

    Args:
        files: Dict from (repository, file) to bytes. What is uploaded is added.

    `tokens` holds what clients sent as their tokens, and `created` what they asked for of new repositories. Only the
    large files of uploads, of these names, are sent one by one: LARGE. The others are part of the commit.

    The faults are attributes:
        down: Bool, whether every request is answered with 500.
        refuses: The status of a refusal that every request is answered with, 401 or 403; `None` for no refusal.
        headers: Dict of headers that it sends in place of its own.
        strange: Bool, whether files come without the hub's headers, as from a login page or a wrong mirror.
        broken_gets: How many GETs are still to be broken off, `ALWAYS` for all.
        break_after: How many bytes of the body such a GET sends.
        on_break: Called then, before the connection ends.
        reset: Bool, whether the connection ends with a reset, not in order.
    """

    def __init__(self, files):
        self.files = files
        self.down = False
        self.refuses = None
        self.headers = {}
        self.strange = False
        self.broken_gets = 0
        self.break_after = 0
        self.on_break = lambda: None
        self.reset = False
        self.requests = []
        self.tokens = set()
        self.created = []
        self.sent = {}
        self.url = None

    @property
    def ranges(self):
        """The Range headers of the GETs of files, in order; `None` for a whole file."""
        return [request.range for request in self.requests if request.method == "GET" and "/resolve/" in request.path]

    @contextlib.contextmanager
    def running(self):
        """Answers requests at `url`, in a thread."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.hub = self
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def point_to(url, monkeypatch):
    """Makes a URL the hub of this process."""
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # Older releases have a copy.
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


def forget_connections():
    """The hub's library keeps connections, and in its older releases the offline mode with them."""
    if hasattr(huggingface_hub.utils, "reset_sessions"):
        huggingface_hub.utils.reset_sessions()
    else:
        huggingface_hub.close_session()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._take()

    def do_PUT(self):
        self._take()

    def log_message(self, *args):
        """Requests are recorded, not printed."""

    def handle(self):
        with contextlib.suppress(ConnectionError):  # Clients may give up at any time.
            super().handle()

    def _answer(self):
        hub = self.server.hub
        hub.requests.append(Request(self.command, self.path, self.headers["Range"]))
        place = re.fullmatch(r"/(.+)/resolve/[^/]+/(.+)", self.path)
        if hub.down:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR)
        elif hub.refuses:
            self._send(hub.refuses)
        elif hub.created and self.path.startswith("/api/models/"):  # asked by old releases of the library
            self._send_json({"id": "owner/name", "sha": COMMIT, "xetEnabled": False})
        elif not place or place[1] not in {repository for repository, _ in hub.files}:
            self._send(HTTPStatus.NOT_FOUND, {"X-Error-Code": "RepoNotFound"})
        elif place.groups() not in hub.files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT, **hub.headers}
            self._send(HTTPStatus.NOT_FOUND, headers)
        else:
            self._send_file(hub.files[place.groups()])

    def _take(self):
        """Answers the requests of an upload."""
        hub = self.server.hub
        hub.requests.append(Request(self.command, self.path, None))
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"]:
            hub.tokens.add(self.headers["Authorization"].removeprefix("Bearer "))
        if hub.down or hub.refuses:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR if hub.down else hub.refuses)
        elif self.command == "PUT":
            hub.sent[self.path.rpartition("/")[2]] = content
            self._send(HTTPStatus.OK)
        elif self.path == "/api/repos/create":
            hub.created.append(json.loads(content))
            self._send_json({"url": f"{hub.url}/owner/name"})
        elif self.path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(content)["files"]]
            modes = {path: "lfs" if LARGE.fullmatch(path) else "regular" for path in paths}
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            self._send_json({"files": files})
        elif self.path.endswith("/lfs/objects/batch"):
            objects = [
                {**file, "actions": {"upload": {"href": f"{hub.url}/objects/{file['oid']}"}}}
                for file in json.loads(content)["objects"]
            ]
            self._send_json({"objects": objects, "transfer": "basic"})
        elif place := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            for line in map(json.loads, content.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[place[1], value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[place[1], value["path"]] = hub.sent[value["oid"]]
            url = f"{hub.url}/{place[1]}/commit/{COMMIT}"
            self._send_json({"success": True, "commitOid": COMMIT, "commitUrl": url})
        else:
            self._send(HTTPStatus.NOT_FOUND)

    def _send_json(self, contents):
        self._send(HTTPStatus.OK, {"Content-Type": "application/json"}, json.dumps(contents).encode())

    def _send_file(self, content):
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
            **self.server.hub.headers,
        }
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if self.server.hub.strange:
            self._send(HTTPStatus.OK, {}, content)
        elif not wanted:
            self._send(HTTPStatus.OK, headers, content)
        elif (start := int(wanted[1])) < len(content):
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(HTTPStatus.PARTIAL_CONTENT, headers, content[start:])
        else:
            headers["Content-Range"] = f"bytes */{len(content)}"
            self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)

    def _send(self, status, headers=None, body=b""):
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(body)

    def _send_body(self, body):
        hub = self.server.hub
        if not hub.broken_gets or not body:
            self.wfile.write(body)
            return
        hub.broken_gets -= 1
        self.close_connection = True
        self.wfile.write(body[: hub.break_after])
        hub.on_break()
        if hub.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            self.connection.close()  # Here, for the server would first shut it down in order.
