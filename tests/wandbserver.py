"""As much of a W&B server as its client needs to go online: ``with wandb_server() as server``.

It keeps what the real client sends, run by run, and tells a client that resumes what there is.
"""

import contextlib
import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


@dataclass
class Run:
    """What a server knows of a run."""

    upserted: dict[str, Any] = field(default_factory=dict)
    """Variables of the mutation, from all of them the latest that were given."""
    resumed: int = 0
    """How often a client was told that it is there."""
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Rows by their place."""
    summary: dict[str, Any] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)


@dataclass
class WandbServer:
    """A running server."""

    url: str = ""
    runs: dict[tuple[str, str, str], Run] = field(default_factory=dict)
    """By entity, project and id."""
    keys: set[str | None] = field(default_factory=set)
    """Authorization headers of what asked for data."""
    files: dict[str, bytes] = field(default_factory=dict)

    def graphql(self, name: str, given: dict[str, Any]) -> Any:
        """Answer a query by its name."""
        entity, project = given.get("entity") or "me", given.get("project") or ""
        place = {"id": "p", "name": project, "entity": {"id": "e", "name": entity}}
        match name:
            case "RunResumeStatus":
                run = self.runs.get((entity, project, given["name"]))
                if run is None:
                    return {"model": None}
                run.resumed += 1
                return {"model": {**place, "bucket": self._bucket(given["name"], run)}}
            case "UpsertBucket":
                run = self.runs.setdefault((entity, project, given["name"]), Run())
                new = not run.upserted
                run.upserted |= {key: value for key, value in given.items() if value is not None}
                bucket = {**self._bucket(given["name"], run), "project": place, "sweepName": None, "description": None}
                return {"upsertBucket": {"bucket": bucket, "inserted": new}}
            case "CreateRunFiles":
                files = [{"name": file, "uploadUrl": f"{self.url}/storage/{file}"} for file in given["files"]]
                return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
            case _:
                raise KeyError(name)

    @staticmethod
    def _bucket(name: str, run: Run) -> dict[str, Any]:
        return {
            "id": "r",
            "name": name,
            "displayName": run.upserted.get("displayName"),
            "config": run.upserted.get("config", "{}"),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
            "historyTail": json.dumps([json.dumps(run.history[max(run.history)])] if run.history else []),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "tags": [],
            "notes": None,
            "wandbConfig": '{"t": 1}',
        }

    def stream(self, run: Run, content: dict[str, Any]) -> None:
        """Take in a part of a run's files."""
        files = content.get("files") or {}
        if rows := files.get("wandb-history.jsonl"):
            run.history |= {rows["offset"] + i: json.loads(row) for i, row in enumerate(rows["content"])}
        if summary := files.get("wandb-summary.json"):
            run.summary |= json.loads(summary["content"][-1])
        if content.get("complete"):
            run.exit_codes.append(content["exitcode"])


@contextlib.contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Serve on a free port of this machine."""
    server = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            parts = [unquote(part) for part in self.path.split("/")[1:]]
            if parts[0] in ("graphql", "files"):
                server.keys.add(self.headers["Authorization"])
            if parts[0] == "graphql":
                query = json.loads(body)
                self._answer({"data": server.graphql(query["operationName"], query.get("variables") or {})})
            elif parts[0] == "files":
                server.stream(server.runs[parts[1], parts[2], parts[3]], json.loads(body))
                self._answer({})
            else:  # the client's telemetry
                self._answer({})

        def do_PUT(self) -> None:
            server.files[unquote(self.path.removeprefix("/storage/"))] = self._body()
            self._answer({})

        def log_message(self, *_: object) -> None:
            pass

        def _body(self) -> bytes:
            raw = self.rfile.read(int(self.headers["Content-Length"] or 0))
            return gzip.decompress(raw) if self.headers["Content-Encoding"] == "gzip" else raw

        def _answer(self, content: Any) -> None:
            raw = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
