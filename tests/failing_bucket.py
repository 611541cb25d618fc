"""A bucket behind HTTP whose requests fail as a test says."""

import collections
import contextlib
import http.server
import threading
import time
from collections.abc import Iterator

import numpy as np


class Bucket(http.server.ThreadingHTTPServer):
    """Files by name; `faults` of a name are what its next GET and HEAD requests meet: a status,
    "break" (half of the bytes), "silent" (half, then nothing) or "drip" (all, slowly)."""

    daemon_threads = True

    def __init__(self, *, ranges, tags):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.tags = {}, ranges, tags
        self.faults = collections.defaultdict(list)
        self.asked = collections.Counter()
        self.let_go = threading.Event()

    def handle_error(self, *args):
        """Who asked has gone."""

    def address(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        name, server = self.path.lstrip("/"), self.server
        server.asked[name] += 1
        fault = server.faults[name].pop(0) if server.faults[name] else None
        data = server.files.get(name)
        if isinstance(fault, int) or data is None:
            self.send_response(fault or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status, ranged = 200, self.headers.get("Range") if server.ranges else None
        if ranged:
            first, last = ranged.removeprefix("bytes=").split("-")
            status, data = 206, data[int(first) : int(last) + 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if server.tags:
            self.send_header("ETag", f"{hash(server.files[name])}")
        self.end_headers()
        if body:
            self.send(data, fault)

    def send(self, data, fault):
        if fault == "drip":
            for part in np.array_split(np.frombuffer(data, np.uint8), 12):
                self.wfile.write(part.tobytes())
                time.sleep(0.15)
        elif fault in ("break", "silent"):
            self.wfile.write(data[: len(data) // 2])
            if fault == "silent":
                self.server.let_go.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(*, ranges: bool = True, tags: bool = True) -> Iterator[Bucket]:
    """A bucket that answers, until the end."""
    bucket = Bucket(ranges=ranges, tags=tags)
    threading.Thread(target=bucket.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield bucket
    finally:
        bucket.let_go.set()
        bucket.shutdown()
        bucket.server_close()
