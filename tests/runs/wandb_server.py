"""As much of a W&B server as `wandb sync` needs, on this machine: it takes runs, their rows and files, and may break in the middle."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VIEWER = {"id": "u", "entity": "us", "username": "u", "flags": "{}", "teams": {"edges": []}}


class Server(ThreadingHTTPServer):
    """Keeps rows by run id and offset. While `broken`, it refuses the rows of the runs named there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rows: dict[str, dict[int, str]] = {}
        self.groups: dict[str, tuple[str, str]] = {}
        self.requests = 0
        self.broken: set[str] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def losses(self, run: str) -> list[float]:
        """The losses that it has of a run, in the order of their offsets."""
        rows = [json.loads(text) for _, text in sorted(self.rows.get(run, {}).items())]
        return [row["loss"] for row in rows]

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The reply to a request; None refuses it."""
        self.requests += not path.startswith("/sdk/")
        query, variables = body.get("query", ""), body.get("variables", {})
        if "file_stream" in path:
            return self.stream(path.split("/")[-2], body.get("files", {}))
        if "upsertBucket" in query:
            if variables.get("groupName"):
                self.groups[variables["name"]] = (variables["groupName"], variables["jobType"])
            return {"data": {"upsertBucket": {"bucket": self.bucket(variables), "inserted": True}}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/put/{name}"} for name in variables["files"]]
            return {"data": {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}}
        return {"data": {"viewer": VIEWER} if "viewer" in query else {}}

    def stream(self, run: str, files: dict[str, Any]) -> dict[str, Any] | None:
        """Take rows in, each at its offset."""
        if run in self.broken:
            return None
        history = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
        lines = enumerate(history["content"], start=history["offset"])
        self.rows.setdefault(run, {}).update(lines)
        return {"exitcode": None, "limits": {}}

    @staticmethod
    def bucket(variables: dict[str, Any]) -> dict[str, Any]:
        """A run as the server describes it."""
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "us"}}
        names = dict.fromkeys(("name", "displayName"), variables["name"])
        rest = {"description": "", "config": "{}", "sweepName": None, "historyLineCount": 0}
        return {"id": "x", **names, **rest, "project": project}


class Handler(BaseHTTPRequestHandler):
    """JSON in, JSON out."""

    server: Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.reply({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.reply({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer = self.server.answer(self.path, json.loads(body) if body[:1] == b"{" else {})
        self.reply(answer or {"error": "broken"}, 200 if answer is not None else 403)

    def reply(self, answer: dict[str, Any], code: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
