# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""
A small Hub on loopback: what `huggingface_hub` and `datasets` ask for when they push, load and list.

    with HubServer() as hub:
        subprocess.run(..., env={**hub.environment(home), ...})

Its address is read when `huggingface_hub` is imported, so a client is a new process. The server keeps everything in
memory, and speaks HTTP only.
"""

import base64
import hashlib
import json
import math
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


USER = "someone"
WRITE_TOKEN = "hf_write"
READ_TOKEN = "hf_read"
# Every other token is refused.
TOKENS = {WRITE_TOKEN: "write", READ_TOKEN: "read"}

STALLS = -1  # in place of a status

# What the Hub stores by LFS, as its default .gitattributes has it. The rest travels within the commit.
LFS_SUFFIXES = (".safetensors", ".onnx", ".parquet", ".bin", ".pt", ".jpg", ".png")

# Parts of addresses. Of a file's, models have no prefix.
API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
FILES = r"/((?P<kind>datasets)/)?(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"


@dataclass
class Commit:
    message: str
    files: dict[str, bytes]

    @property
    def sha(self) -> str:
        contents = sorted((path, blob_id(data)) for path, data in self.files.items())
        return hashlib.sha1(repr((self.message, contents)).encode()).hexdigest()


@dataclass
class Repository:
    private: bool = False
    # Branch -> its commits, oldest first.
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": [Commit("initial commit", {})]})

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch or a sha names."""
        if revision in self.branches:
            return self.branches[revision][-1]
        commits = [commit for branch in self.branches.values() for commit in branch]
        return next((commit for commit in commits if commit.sha == revision), None)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    token: str | None
    range: str | None = None


class HubServer:
    """
    A Hub for the time of a `with` block.

    Attributes:
        url (`str`): its address, for `HF_ENDPOINT`.
        requests (`list[Request]`): every request so far.
        blobs (`dict[str, bytes]`): what LFS uploads have brought, by SHA-256.
    """

    def __init__(self):
        self.lock = threading.RLock()
        self.connections: set[socket.socket] = set()
        self.woken = threading.Event()
        self.reset()
        self._listen(port=0)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _listen(self, port: int):
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Inside of it no connection is open, and new ones are refused."""
        self.__exit__()
        for connection in list(self.connections):
            with suppress(OSError):  # the client has closed it
                connection.shutdown(socket.SHUT_RDWR)
        try:
            yield
        finally:
            self._listen(self._server.server_port)
            self.__enter__()

    def reset(self):
        """Forget everything, and have no accidents."""
        self.woken.set()
        self.woken = threading.Event()
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.cut_uploads(None)
        self.cut_downloads(0)
        self.refuse(None)

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Variables with which a new process has this Hub, an empty cache in `home`, and `token`, if any."""
        environment = {
            "HOME": str(home),
            "HF_HOME": str(home / "huggingface"),
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",  # large files by LFS: Xet needs a server of its own
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        return environment if token is None else environment | {"HF_TOKEN": token}

    def add_files(self, kind: str, repo_id: str, files: dict[str, bytes], private: bool = False) -> str:
        """Commit files to a repository, made if need be, and give the sha; `kind` is "model" or "dataset"."""
        with self.lock:
            repository = self.repositories.setdefault((kind, repo_id), Repository(private))
            commits = repository.branches["main"]
            commits.append(Commit(f"commit {len(commits)}", commits[-1].files | files))
            return commits[-1].sha

    def files(self, repo_id: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """What a revision holds, by path."""
        return self.repositories[kind, repo_id].find(revision).files

    def sha(self, repo_id: str, revision: str = "main", kind: str = "model") -> str:
        """The name of a branch's last commit."""
        return self.repositories[kind, repo_id].find(revision).sha

    def commits(self, repo_id: str, revision: str = "main", kind: str = "model") -> list[str]:
        """The messages of a branch's commits, oldest first."""
        return [commit.message for commit in self.repositories[kind, repo_id].branches[revision]]

    def cut_uploads(self, first: int | None):
        """From the `first`-th LFS upload on (1 is the next one), cut each in the middle, until `cut_uploads(None)`."""
        with self.lock:
            self._num_uploads, self._first_cut = 0, first

    def cut_downloads(self, number: int, name: str = ""):
        """Cut the next `number` downloads of files whose path ends with `name`, each in the middle of its bytes."""
        with self.lock:
            self._num_cut_downloads, self._cut_name = number, name

    def refuse(
        self,
        path: str | None,
        status: int | None = 503,
        message: str = "Down for maintenance",
        times: float = math.inf,
        **headers: str,
    ):
        """
        Answer every request whose path holds the regular expression `path`, or the next `times` ones, with an error,
        or with no `status` not at all, until `refuse(None)`.
        """
        with self.lock:
            self._refusal = None if path is None else (path, status, message, headers)
            self._num_refusals = 0 if path is None else times

    def stall(self, path: str, times: float):
        """Do not answer the next `times` requests whose path holds the regular expression `path` before `reset`."""
        with self.lock:
            self._refusal, self._num_refusals = (path, STALLS, "", {}), times

    @property
    def num_failures_left(self) -> float:
        """How many of the failures that were asked for nobody has met."""
        return self._num_refusals + self._num_cut_downloads

    def cuts_this_download(self, path: str) -> bool:
        with self.lock:
            if not self._num_cut_downloads or not path.endswith(self._cut_name):
                return False
            self._num_cut_downloads -= 1
            return True

    def cuts_this_upload(self) -> bool:
        with self.lock:
            self._num_uploads += 1
            return self._first_cut is not None and self._num_uploads >= self._first_cut

    def refusal_of(self, path: str) -> tuple[int | None, str, dict[str, str]] | None:
        with self.lock:
            if self._refusal is None or not self._num_refusals or not re.search(self._refusal[0], path):
                return None
            self._num_refusals -= 1
            return self._refusal[1:]


def blob_id(data: bytes) -> str:
    """The name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def read_card_head(files: dict[str, bytes]) -> dict:
    """The metadata at the head of README.md, from which the Hub knows a model's task and library."""
    match = re.match(r"---\n(.*?)\n---", files.get("README.md", b"").decode(), flags=re.DOTALL)
    return yaml.safe_load(match[1]) if match else {}


class _HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": message, **headers} | ({"X-Error-Code": code} if code else {})


class _Handler(BaseHTTPRequestHandler):
    """One connection. Answers are the shortest ones that the clients take."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    # (method, path) -> name of the method that answers.
    ROUTES = [
        ("POST", r"/api/repos/create", "create_repository"),
        ("POST", r"/api/validate-yaml", "validate_card"),
        ("POST", rf"{API}/branch/(?P<branch>[^/]+)", "create_branch"),
        ("POST", rf"{API}/preupload/{REVISION}", "preupload"),
        ("POST", rf"{API}/commit/{REVISION}", "commit"),
        ("GET", rf"{API}/tree/{REVISION}(/(?P<folder>.*))?", "tree"),
        ("GET", rf"{API}(/revision/{REVISION})?", "information"),
        ("POST", rf"{FILES}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
        ("GET", rf"{FILES}/resolve/{REVISION}/(?P<path>.+)", "download"),
    ]

    def setup(self):
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self):
        self.hub.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_):
        """Nothing on stderr."""

    def do_GET(self):
        self.answer("GET")

    def do_HEAD(self):
        self.answer("GET")

    def do_POST(self):
        self.answer("POST")

    def do_PUT(self):
        self.answer("PUT")

    def answer(self, method: str):
        address = urlsplit(self.path)
        self.query = parse_qs(address.query)
        authorization = self.headers.get("Authorization")
        self.token = authorization.removeprefix("Bearer ") if authorization else None
        self.hub.requests.append(Request(self.command, address.path, self.token, self.headers.get("Range")))
        self.body_is_read = False
        try:
            refusal = self.hub.refusal_of(address.path)
            if refusal is not None and refusal[0] == STALLS:
                self.hub.woken.wait()
            if refusal is not None and refusal[0] in (None, STALLS):
                self.close_connection = True
                return
            if refusal is not None:
                status, message, headers = refusal
                raise _HubError(status, message, **headers)
            if self.token is not None and self.token not in TOKENS:
                raise _HubError(401, "Invalid credentials in Authorization header")
            for route_method, pattern, name in self.ROUTES:
                match = re.fullmatch(pattern, address.path)
                if match and method == route_method:
                    found = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                    if "name" in found:
                        kind = "dataset" if found.pop("kind", None) == "datasets" else "model"
                        found["repository"] = (kind, found.pop("name"))
                    getattr(self, name)(**found)
                    return
            raise _HubError(404, f"{method} {address.path} is nothing that this Hub knows")
        except _HubError as error:
            self.read_body()
            self.send(json.dumps({"error": error.message}).encode(), error.status, **error.headers)

    def read_body(self) -> bytes:
        if self.body_is_read:
            return b""
        self.body_is_read = True
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def send(self, body: bytes, status: int = 200, **headers: str):
        """Keywords are names of headers, with `_` or `-`."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, content, status: int = 200):
        self.send(json.dumps(content).encode(), status, Content_Type="application/json")

    # --- Who may do what ---------------------------------------------------------------------------------------------

    def find(self, repository: tuple[str, str], revision: str = "main") -> Commit:
        """A commit that this client may read."""
        found = self.hub.repositories.get(repository)
        if found is None or (found.private and self.token is None):
            # The Hub does not tell strangers which private repositories exist.
            raise _HubError(401 if self.token is None else 404, "Repository not found", "RepoNotFound")
        commit = found.find(revision)
        if commit is None:
            raise _HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def check_writable(self, repo_id: str):
        if self.token is None:
            raise _HubError(401, "Invalid username or password.")
        if TOKENS[self.token] != "write" or not repo_id.startswith(f"{USER}/"):
            raise _HubError(403, f"You don't have the rights to write to {repo_id}")

    # --- Push --------------------------------------------------------------------------------------------------------

    def create_repository(self):
        asked = json.loads(self.read_body())
        repo_id = f"{asked.get('organization') or USER}/{asked['name']}"
        kind = asked.get("type", "model")
        self.check_writable(repo_id)
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
        with self.hub.lock:
            if (kind, repo_id) in self.hub.repositories:
                self.send_json({"error": "You already created this repository", "url": url}, 409)
                return
            # A private repository is asked for by `private` or, since huggingface_hub 2, by `visibility`.
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.hub.repositories[kind, repo_id] = Repository(private)
        self.send_json({"url": url, "name": repo_id})

    def validate_card(self):
        content = json.loads(self.read_body())["content"]
        try:
            head = read_card_head({"README.md": content.encode()})
        except yaml.YAMLError as error:
            self.send_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
            return
        warnings = [] if head else [{"message": "empty or missing yaml metadata in repo card"}]
        self.send_json({"errors": [], "warnings": warnings})

    def create_branch(self, repository: tuple[str, str], branch: str):
        self.check_writable(repository[1])
        self.find(repository)
        self.read_body()
        with self.hub.lock:
            branches = self.hub.repositories[repository].branches
            if branch in branches:
                raise _HubError(409, f"Reference already exists: {branch}")
            branches[branch] = list(branches["main"])
        self.send_json({})

    def preupload(self, repository: tuple[str, str], revision: str):
        self.check_writable(repository[1])
        files = self.find(repository, revision).files
        self.send_json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                        "shouldIgnore": False,
                        "oid": oid_of(file["path"], files[file["path"]]) if file["path"] in files else None,
                    }
                    for file in json.loads(self.read_body())["files"]
                ]
            }
        )

    def lfs_batch(self, repository: tuple[str, str]):
        self.check_writable(repository[1])
        answers = []
        for asked in json.loads(self.read_body())["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.blobs:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}
            answers.append(answer)
        self.send_json({"transfer": "basic", "objects": answers})

    def lfs_upload(self, oid: str):
        if self.hub.cuts_this_upload():
            self.body_is_read = True
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            self.close_connection = True  # without an answer
            return
        data = self.read_body()
        if hashlib.sha256(data).hexdigest() != oid:
            raise _HubError(400, "Content does not match its SHA-256")
        self.hub.blobs[oid] = data
        self.send(b"")

    def commit(self, repository: tuple[str, str], revision: str):
        """All operations or none."""
        self.check_writable(repository[1])
        files = dict(self.find(repository, revision).files)
        if revision not in self.hub.repositories[repository].branches:
            raise _HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        message = None
        for line in self.read_body().splitlines():
            key, value = (operation := json.loads(line))["key"], operation["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    raise _HubError(400, f"{value['path']} has not been uploaded")
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise _HubError(404, f"{value['path']}: A file with this name doesn't exist", "EntryNotFound")
            else:
                raise _HubError(400, f"This Hub knows no operation {key!r}")
        with self.hub.lock:
            commit = Commit(message, files)
            self.hub.repositories[repository].branches[revision].append(commit)
        kind, repo_id = repository
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{repo_id}/commit/{commit.sha}"
        self.send_json({"commitUrl": url, "commitOid": commit.sha, "success": True})

    # --- Load --------------------------------------------------------------------------------------------------------

    def information(self, repository: tuple[str, str], revision: str = "main"):
        commit = self.find(repository, revision)
        head = read_card_head(commit.files)
        self.send_json(
            {
                "id": repository[1],
                "sha": commit.sha,
                "private": self.hub.repositories[repository].private,
                "tags": head.get("tags", []),
                "cardData": head,
                "siblings": [{"rfilename": path} for path in sorted(commit.files)],
                **{key: head[key] for key in ("pipeline_tag", "library_name") if key in head},
            }
        )

    def tree(self, repository: tuple[str, str], revision: str, folder: str = ""):
        files = self.find(repository, revision).files
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        root = PurePosixPath(folder)
        below = [path for path in map(PurePosixPath, sorted(files)) if path.is_relative_to(root)]
        if folder and not below:
            raise _HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        folders = {parent for path in below for parent in path.parents if root in parent.parents}
        entries = [{"type": "directory", "path": str(path), "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        entries += [entry_of(str(path), files[str(path)]) for path in below]
        if not recursive:
            entries = [entry for entry in entries if PurePosixPath(entry["path"]).parent == root]
        self.send_json(entries)

    def download(self, repository: tuple[str, str], revision: str, path: str):
        commit = self.find(repository, revision)
        if path not in commit.files:
            raise _HubError(404, f"{path} does not exist on {revision}", "EntryNotFound", X_Repo_Commit=commit.sha)
        data = commit.files[path]
        headers = {"ETag": f'"{oid_of(path, data)}"', "X_Repo_Commit": commit.sha, "Accept_Ranges": "bytes"}
        first, last = 0, len(data) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or not data:
            self.send_file(data, **headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or last), last)
        self.send_file(data[first : last + 1], 206, Content_Range=f"bytes {first}-{last}/{len(data)}", **headers)

    def send_file(self, data: bytes, status: int = 200, **headers: str):
        if self.command == "HEAD" or not self.hub.cuts_this_download(urlsplit(self.path).path):
            self.send(data, status, **headers)
            return
        self.send(data[: len(data) // 2], status, Content_Length=str(len(data)), **headers)
        self.close_connection = True


def oid_of(path: str, data: bytes) -> str:
    """What the Hub names a file's content by: SHA-256 under LFS, git's SHA-1 otherwise."""
    return hashlib.sha256(data).hexdigest() if path.endswith(LFS_SUFFIXES) else blob_id(data)


def entry_of(path: str, data: bytes) -> dict:
    entry = {"type": "file", "path": path, "oid": blob_id(data), "size": len(data)}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": oid_of(path, data), "size": len(data), "pointerSize": 134}
    return entry
