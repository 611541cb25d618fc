"""A Hub of models on this machine, with as much of its protocol as huggingface_hub asks of it."""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import threading
import urllib.parse
from collections.abc import Iterator, Mapping

TOKEN = "hf_of_a_test"


class Hub(http.server.ThreadingHTTPServer):
    """Repositories by name; each has commits, oldest first, and branches and tags that name one.

    `gated` are given to `TOKEN` alone, `private` shown to it alone; `status` is what every request
    is answered with while it is set.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits, self.refs, self.asked = {}, {}, []
        self.gated, self.private, self.status = set(), set(), None

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *args):
        """Who asked has gone."""

    def push(self, repo, files: Mapping[str, bytes] | os.PathLike, ref="main"):
        """A commit of these files, or of those of a folder; returns its name."""
        if not isinstance(files, Mapping):
            folder = pathlib.Path(files)
            paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        content = repr([repo, len(self.commits.get(repo, ())), sorted(files.items())])
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.commits.setdefault(repo, {})[commit] = dict(files)
        self.refs.setdefault(repo, {})[ref] = commit
        return commit

    def brought(self):
        """Names of the files that were fetched since it was last asked."""
        gets = [path for method, path in self.asked if method == "GET" and "/resolve/" in path]
        self.asked.clear()
        return sorted(path.partition("/resolve/")[2].partition("/")[2] for path in gets)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        url = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(part) for part in url.path.strip("/").split("/")]
        self.server.asked.append((self.command, urllib.parse.unquote(url.path)))
        is_api = parts[:2] == ["api", "models"]
        org, name, what, revision, *rest = (parts[2:] if is_api else parts) + [""] * 4
        repo, path = f"{org}/{name}", "/".join(part for part in rest if part)
        if self.server.status:
            return self.refuse(self.server.status, "")
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo not in self.server.commits or (repo in self.server.private and not known):
            return self.refuse(404 if known else 401, "RepoNotFound")
        commits = self.server.commits[repo]
        commit = self.server.refs[repo].get(revision, revision)
        if commit not in commits:
            return self.refuse(404, "RevisionNotFound")
        files = commits[commit]
        if is_api and what == "revision":
            # Whoever may read them, names are shown.
            siblings = [{"rfilename": name} for name in files]
            return self.say({"id": repo, "sha": commit, "siblings": siblings})
        if repo in self.server.gated and not known:
            return self.refuse(401, "GatedRepo")
        if is_api and what == "tree":
            return self.say([
                {"type": "file", "path": name, "size": len(data), "oid": digest(data)}
                for name, data in files.items()
            ])  # fmt: skip
        if what != "resolve" or path not in files:
            return self.refuse(404, "EntryNotFound")
        headers = {"ETag": f'"{digest(files[path])}"', "X-Repo-Commit": commit}
        return self.send(files[path], headers)

    def say(self, values):
        self.send(json.dumps(values).encode(), {"Content-Type": "application/json"})

    def send(self, data, headers):
        self.send_response(200)
        for name, value in {**headers, "Content-Length": len(data)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def digest(data):
    """As git names a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that answers, until the end."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


def environment(hub: Hub, cache: os.PathLike) -> dict[str, str]:
    """What a process must have to ask it and nobody else, with a cache of its own."""
    return {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip


@contextlib.contextmanager
def asked(hub: Hub, cache: os.PathLike, monkeypatch) -> Iterator[Hub]:
    """The library in this process asks it: it read its variables when it was imported."""
    from huggingface_hub import constants

    from ssldiff_jax.formats import hub as formats_hub

    for name, value in environment(hub, cache).items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    of_repository = "/{repo_id}/resolve/{revision}/{filename}"
    settings = {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + of_repository,
        "HF_HUB_CACHE": str(pathlib.Path(cache) / "hub"),
        "HF_TOKEN_PATH": str(pathlib.Path(cache) / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    formats_hub.snapshot.cache_clear()
    yield hub
    formats_hub.snapshot.cache_clear()
