"""A STUB of a Weights & Biases server on loopback: enough of its protocol for the real client, and faults on demand.

It is no server of W&B and says nothing about what that server would do beyond the protocol: it keeps runs in memory,
answers the GraphQL queries that the client of wandb 0.31 sends to start, resume, mirror and list runs, and takes the
stream of their histories. History lines go to the offset that the client names, as W&B's server has it.
"""

import gzip
import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from graphql import FieldNode, FragmentDefinitionNode, FragmentSpreadNode, OperationDefinitionNode, parse
from graphql.utilities import value_from_ast_untyped

KEY = "local" + 40 * "0"
ENTITY = "lab"


class StubRun:
    """What the stub keeps of a run, under the names of W&B's protocol."""

    def __init__(self, project: str, name: str, number: int) -> None:
        self.project, self.name, self.number = project, name, number
        self.fields: dict[str, Any] = {"displayName": name, "tags": [], "config": "{}", "state": "running"}
        self.history: list[str] = []
        self.summary: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.exit_code: int | None = None
        self.beats = 0  # messages of a client
        self.summaries_sent = 0

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.history]

    def as_graphql(self) -> dict[str, Any]:
        def summary() -> str:
            self.summaries_sent += 1
            return json.dumps(self.summary)

        return {
            **self.fields,
            "id": f"id-{self.number}",
            "name": self.name,
            "project": {"name": self.project, "entity": {"name": ENTITY}},
            "projectId": "1",
            "internalId": str(self.number),
            "summaryMetrics": summary,
            "historyLineCount": len(self.history),
            "historyTail": json.dumps(self.history[-1:]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "wandbConfig": '{"t": 1}',
            "createdAt": "2026-01-01T00:00:00Z",
            "heartbeatAt": f"2026-01-01T00:{self.beats // 60:02}:{self.beats % 60:02}Z",
            "user": {"name": ENTITY, "username": ENTITY},
            "historyKeys": {"keys": {}, "lastStep": len(self.history) - 1},
            "readOnly": False,
        }


class StubArtifact:
    """A version of an artifact, and what was uploaded for it."""

    def __init__(self, number: int, created: dict[str, Any]) -> None:
        self.id = f"artifact-{number}"
        self.name: str = created["artifactCollectionName"]
        self.type: str = created["artifactTypeName"]
        self.run: str = created["runName"]
        self.state = "PENDING"
        self.files: dict[str, bytes] = {}


class WandbStub(ThreadingHTTPServer):
    """The server; a context manager. Its faults are attributes that a test sets."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, StubRun] = {}
        self.views: list[dict[str, Any]] = []  # saved views and reports, as they were sent
        self.artifacts: list[StubArtifact] = []
        self.lock = threading.RLock()
        self.requests: Counter[str] = Counter()  # by operation
        self.unknown: set[str] = set()
        self.rejects_key = False
        self.too_many_requests = 0  # so many requests are answered with 429
        self.refuses_streams = False  # histories are answered with 500
        self.delay_s = 0.0

    def __enter__(self) -> "WandbStub":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed has left its connections open; everything else is an error of the stub."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def environment(self, folder: Path) -> dict[str, str]:
        """Everything that the client needs to talk to this server, and to leave its files in ``folder`` only."""
        return client_environment(folder, self.url)

    def run(self, project: str, name: str) -> StubRun:
        """A run, made if need be."""
        with self.lock:
            if name not in self.runs:
                self.runs[name] = StubRun(project, name, len(self.runs) + 1)
            return self.runs[name]


def client_environment(folder: Path, url: str) -> dict[str, str]:
    """Variables under which the real client talks to ``url`` alone."""
    home = folder / "wandb client"
    home.mkdir(parents=True, exist_ok=True)
    folders = ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")
    return {
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": KEY,
        "WANDB_ENTITY": ENTITY,
        "NETRC": str(home / "netrc"),
        "WANDB_ERROR_REPORTING": "false",
        **dict.fromkeys(folders, str(home)),
    }


class _Handler(BaseHTTPRequestHandler):
    server: WandbStub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """No line a request."""

    def _answer(self, content: Any, status: int = 200) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _is_faulty(self) -> bool:
        """Whether a fault answers instead."""
        time.sleep(self.server.delay_s)
        if self.server.rejects_key:
            self._answer({"errors": [{"message": "invalid API key"}]}, 401)
            return True
        with self.server.lock:
            if self.server.too_many_requests > 0:
                self.server.too_many_requests -= 1
                self.server.requests["429"] += 1
                self._answer({"error": "rate limit exceeded"}, 429)
                return True
        return False

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def do_POST(self) -> None:
        body, parts = self._body(), [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        if self._is_faulty():
            return
        if parts == ["graphql"]:
            asked = json.loads(body)
            with self.server.lock:
                self._answer({"data": _execute(self.server, asked["query"], asked.get("variables") or {})})
        elif parts[0] == "files" and parts[-1] == "file_stream":
            self.server.requests["file_stream"] += 1
            if self.server.refuses_streams:
                self._answer({"error": "broken"}, 500)
                return
            with self.server.lock:
                _take_stream(self.server.run(parts[2], parts[3]), json.loads(body))
            self._answer({"exitcode": None, "limits": {}})
        else:
            self._answer({}, 404)

    def do_PUT(self) -> None:
        body, parts = self._body(), [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        if self._is_faulty():
            return
        self.server.requests["upload"] += 1
        if parts[0] == "storage":
            self.server.run(parts[1], parts[2]).files["/".join(parts[3:])] = body
        else:
            _artifact(self.server, parts[1]).files["/".join(parts[2:])] = body
        self._answer({})

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        if self._is_faulty():
            return
        self.server.requests["download"] += 1
        files = self.server.run(parts[1], parts[2]).files if parts[:1] == ["storage"] else {}
        content = files.get("/".join(parts[3:]))
        self._answer({} if content is None else content, 404 if content is None else 200)


def _take_stream(run: StubRun, message: dict[str, Any]) -> None:
    run.beats += 1
    files = message.get("files") or {}
    history = files.get("wandb-history.jsonl")
    if history:
        offset, lines = int(history["offset"]), history["content"]
        run.history[offset : offset + len(lines)] = lines
    for line in (files.get("wandb-summary.json") or {}).get("content", []):
        run.summary = json.loads(line)
    if message.get("complete"):
        run.exit_code = message.get("exitcode")
        failed = "preempted" if run.fields["state"] == "preempting" else "failed"
        run.fields["state"] = "finished" if run.exit_code == 0 else failed
    elif message.get("preempting"):
        run.fields["state"] = "preempting"


# ---------------------------------------------------------------------------------------------------------------
# GraphQL: what a query selects is looked up in dictionaries and functions of its arguments
# ---------------------------------------------------------------------------------------------------------------


def _execute(server: WandbStub, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    document = parse(query)
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    operation = next(node for node in document.definitions if isinstance(node, OperationDefinitionNode))
    server.requests[operation.name.value if operation.name else "anonymous"] += 1
    for definition in operation.variable_definitions or ():
        if definition.default_value is not None:
            variables.setdefault(definition.variable.name.value, value_from_ast_untyped(definition.default_value))

    def select(value: Any, selections: Any) -> Any:
        if isinstance(value, list):
            return [select(item, selections) for item in value]
        if selections is None or not isinstance(value, dict):
            return value
        out: dict[str, Any] = {}
        for node in selections.selections:
            if isinstance(node, FragmentSpreadNode):
                out |= select(value, fragments[node.name.value].selection_set)
            elif isinstance(node, FieldNode):
                name = node.name.value
                found = value.get(name)
                if name not in value and name != "__typename":
                    server.unknown.add(f"{operation.name.value if operation.name else ''}: {name}")
                if callable(found):
                    arguments = {a.name.value: value_from_ast_untyped(a.value, variables) for a in node.arguments or ()}
                    found = found(**arguments)
                out[node.alias.value if node.alias else name] = select(found, node.selection_set)
            else:  # an inline fragment
                out |= select(value, node.selection_set)
        return out

    selected: dict[str, Any] = select(_root(server), operation.selection_set)
    return selected


def _root(server: WandbStub) -> dict[str, Any]:
    user = {"id": "u", "name": ENTITY, "username": ENTITY, "entity": ENTITY, "flags": "{}", "email": "", "admin": False}
    user |= {"teams": {"edges": []}, "apiKeys": {"edges": []}, "deletedAt": None}

    def project(name: str, entityName: str = ENTITY) -> dict[str, Any]:
        here = [run for run in server.runs.values() if run.project == name]

        def one(name: str, missingOk: bool = False) -> dict[str, Any] | None:
            run = server.runs.get(name)
            return None if run is None else _run_with_files(server, run)

        def several(
            filters: str = "{}", after: str | None = None, first: int = 50, order: str | None = None
        ) -> dict[str, Any]:
            matching = [run for run in here if _matches(run, json.loads(filters or "{}"))]
            start = int(after or 0)
            page = matching[start : start + first]
            edges = [{"node": run.as_graphql(), "cursor": str(start + i + 1)} for i, run in enumerate(page)]
            more = start + first < len(matching)
            return {"edges": edges, "pageInfo": {"endCursor": str(start + len(page)), "hasNextPage": more}}

        def artifact(name: str) -> dict[str, Any] | None:
            types = [one.type for one in server.artifacts if one.name == name.partition(":")[0]]
            return {"artifactType": {"name": types[0]}} if types else None

        return {
            "id": "project",
            "internalId": "1",
            "name": name,
            "entity": {"name": entityName or ENTITY, "id": "e"},
            "readOnly": False,
            "runCount": lambda filters="{}": len([r for r in here if _matches(r, json.loads(filters or "{}"))]),
            "bucket": one,
            "run": one,
            "runs": several,
            "artifact": artifact,
        }

    def upsert(input: dict[str, Any]) -> dict[str, Any]:
        name = input.get("name") or server_name(server, input.get("id"))
        inserted = name not in server.runs
        run = server.run(input.get("modelName") or "uncategorized", name)
        renamed = {"groupName": "group"}
        for key in ("displayName", "config", "groupName", "jobType", "notes", "tags", "host", "state"):
            if input.get(key) is not None:
                run.fields[renamed.get(key, key)] = input[key]
        if input.get("summaryMetrics"):
            run.summary = json.loads(input["summaryMetrics"])
        return {"bucket": run.as_graphql() | {"id": name}, "inserted": inserted}

    def upsert_view(input: dict[str, Any]) -> dict[str, Any]:
        server.views.append(input)
        place = {"id": "project", "name": input["projectName"], "entityName": input["entityName"]}
        view = input | {"id": f"view{len(server.views)}", "project": place, "updatedAt": "2026-01-01T00:00:00Z"}
        return {"view": view, "inserted": True}

    def create_files(**arguments: Any) -> dict[str, Any]:
        asked = arguments.get("input") or arguments
        run = server.run(asked["projectName"], asked["runName"])
        files = [
            {"name": name, "uploadUrl": f"{server.url}/storage/{run.project}/{run.name}/{name}"}
            for name in asked["files"]
        ]
        return {"runID": run.name, "uploadHeaders": [], "files": files}

    def create_artifact(input: dict[str, Any]) -> dict[str, Any]:
        artifact = StubArtifact(len(server.artifacts) + 1, input)
        server.artifacts.append(artifact)
        return {"artifact": {"id": artifact.id, "state": artifact.state, "artifactSequence": {"latestArtifact": None}}}

    def upload(artifact: str, file: str) -> dict[str, Any]:
        return {"uploadUrl": f"{server.url}/artifact/{artifact}/{file}", "uploadHeaders": []}

    def create_manifest(**arguments: Any) -> dict[str, Any]:
        asked = arguments["input"]
        return {"artifactManifest": {"id": "manifest", "file": {**upload(asked["artifactID"], asked["name"])}}}

    def create_artifact_files(input: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                **upload(file["artifactID"], file["name"]),
                "id": file["name"],
                "name": file["name"],
                "displayName": file["name"],
                "storagePath": file["name"],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in input["artifactFiles"]
        ]
        return {"files": {"edges": [{"node": node} for node in nodes]}}

    def commit_artifact(input: dict[str, Any]) -> dict[str, Any]:
        artifact = _artifact(server, input["artifactID"])
        artifact.state = "COMMITTED"
        return {"artifact": {"id": artifact.id, "digest": ""}}

    return {
        "createArtifact": create_artifact,
        "createArtifactManifest": create_manifest,
        "createArtifactFiles": create_artifact_files,
        "commitArtifact": commit_artifact,
        "viewer": user,
        "serverInfo": {"features": [], "cliVersionInfo": None, "latestLocalVersionInfo": None},
        "entity": lambda name=None: {"name": name or ENTITY, "organization": None, "isTeam": False},
        "model": project,
        "project": project,
        "upsertBucket": upsert,
        "createRunFiles": create_files,
        "upsertView": upsert_view,
        "markRunFilesUploaded": lambda **_: {"success": True},
        "models": lambda **_: {
            "edges": [{"node": _project("vwm"), "cursor": "vwm"}],
            "pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False},
        },
    }


def _project(name: str) -> dict[str, Any]:
    fields = {"__typename": "Project", "id": "project", "name": name, "entityName": ENTITY, "isBenchmark": False}
    return fields | {"createdAt": "2026-01-01T00:00:00Z", "internalId": "1", "user": None}


def server_name(server: WandbStub, run_id: str | None) -> str:
    """The name of the run with this id, which the stub makes the same."""
    return run_id or f"unnamed{len(server.runs)}"


def _artifact(server: WandbStub, number: str) -> StubArtifact:
    (found,) = [artifact for artifact in server.artifacts if artifact.id == number]
    return found


def _run_with_files(server: WandbStub, run: StubRun) -> dict[str, Any]:
    def files(names: list[str] | None = None, after: str | None = None, first: int = 50, **_: Any) -> dict[str, Any]:
        found = [
            {
                "id": name,
                "name": name,
                "url": f"{server.url}/storage/{run.project}/{run.name}/{name}",
                "directUrl": f"{server.url}/storage/{run.project}/{run.name}/{name}",
                "sizeBytes": len(content),
                "mimetype": "application/octet-stream",
                "updatedAt": "2026-01-01T00:00:00Z",
                "md5": "",
            }
            for name, content in run.files.items()
            if not names or name in names
        ]
        edges = [{"node": file, "cursor": str(i)} for i, file in enumerate(found)]
        return {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}

    def history(minStep: int = 0, maxStep: int = 1 << 60, pageSize: int = 1000, **_: Any) -> list[str]:
        rows = [line for line in run.history if minStep <= json.loads(line)["_step"] < maxStep]
        return rows[:pageSize]

    return run.as_graphql() | {"files": files, "fileCount": len(run.files), "history": history}


def _matches(run: StubRun, condition: dict[str, Any]) -> bool:
    """Mongo's filters as far as the client writes them."""
    for key, wanted in condition.items():
        if key == "$and":
            holds = all(_matches(run, part) for part in wanted)
        elif key == "$or":
            holds = any(_matches(run, part) for part in wanted)
        else:
            actual = {"name": run.name}.get(key, run.fields.get(key))
            several = actual if isinstance(actual, list) else [actual]  # a value matches where it is in a list
            holds = actual in wanted["$in"] if isinstance(wanted, dict) else wanted in several
        if not holds:
            return False
    return True
