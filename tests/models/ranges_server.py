"""A web server for one folder in memory, with ranges, that misbehaves on purpose."""

import re
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Files by path; ``received`` holds (path, headers) of every request so far.

    ``act(call, path, start, stop)`` may return (status, headers, body) to send in place of the part that was asked for.
    """

    def __init__(self, files, act=None, ranges=True):
        self.files, self.act, self.ranges, self.received = dict(files), act, ranges, []
        self._lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def spans(self):
        """Bytes asked for by each request, as (first, last)."""
        return [tuple(map(int, headers["Range"].removeprefix("bytes=").split("-"))) for _, headers in self.received]

    def part(self, path, start, stop):
        """The proper answer."""
        data = self.files[path]
        if not self.ranges:
            return 200, {"ETag": '"1"'}, data
        stop = min(stop, len(data))
        return 206, {"ETag": '"1"', "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, data[start:stop]

    def _answer(self, path, headers):
        with self._lock:
            call = len(self.received)
            self.received.append((path, headers))
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", headers["Range"]).groups())
        found = self.act(call, path, first, last + 1) if self.act else None
        if found is None and path not in self.files:
            return 404, {}, b"no"
        return found or self.part(path, first, last + 1)

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                status, headers, body = server._answer(
                    self.path, {name.title(): value for name, value in self.headers.items()}
                )
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                with suppress(OSError):  # the client may have gone
                    self.end_headers()
                    self.wfile.write(body)
                self.close_connection = int(headers.get("Content-Length", len(body))) != len(body)

            def log_message(self, *arguments):
                pass

        return Handler


@contextmanager
def serving(files, act=None, ranges=True):
    server = Server(files, act, ranges)
    try:
        yield server
    finally:
        server.server.shutdown()
        server.server.server_close()
