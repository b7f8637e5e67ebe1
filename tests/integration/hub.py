"""A local hub with the part of the API that loading a model needs."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "5ac0ffee" * 5


@dataclass
class Hub:
    """One model, `acme/small`, at one commit. It needs `token` if one is set; `asked` are the requested paths."""

    folder: Path
    token: str = ""
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a path."""
        if self.token and authorization != f"Bearer {self.token}":
            return 401, {"X-Error-Code": "GatedRepo"}, b"{}"
        if path in ("/api/models/acme/small", "/api/models/acme/small/revision/main"):
            return 200, {"Content-Type": "application/json"}, json.dumps(self._described()).encode()
        if path.startswith("/api/models/acme/small/revision/"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        prefix = f"/acme/small/resolve/{COMMIT}/"
        if path.startswith(prefix):
            data = (self.folder / path.removeprefix(prefix)).read_bytes()
            return 200, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}, data
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def _described(self) -> dict[str, object]:
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        siblings = [{"rfilename": str(path.relative_to(self.folder)), "size": path.stat().st_size} for path in files]
        return {"id": "acme/small", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve the hub on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            path = urlsplit(self.path).path
            status, headers, body = hub.answer(path, self.headers.get("Authorization", ""))
            hub.asked.append(path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
