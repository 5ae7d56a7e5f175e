"""A service that speaks real HTTP: a model behind a local port, which misbehaves on purpose."""

import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from minutia.core.probe import numbered
from minutia.models.toy import ToyClassifier

TOY = ToyClassifier.fresh((4, 6, 3), 1)


def reply(body, status=200, **headers):
    """An answer: JSON, or bytes as they are; Retry_After stands for Retry-After."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, data


def scores(call, sent, model=TOY):
    """The usual behaviour: probabilities of every input under ``instances``."""
    inputs = np.array(sent["instances"], np.float32)
    return reply({"predictions": [{"p": row} for row in model.ask(numbered(inputs, {})).scores.tolist()]})


class Service:
    """A running server; ``act(call, sent)`` gives the reply, ``received`` holds (headers, parsed body) so far.

    A body is written in parts of ``chunk`` bytes, with ``drip`` seconds after each; ``gone`` is set at the end.
    """

    def __init__(self, act, port=0):
        self.act, self.received, self._lock = act, [], threading.Lock()
        self.chunk, self.drip, self.gone = 2**16, 0.0, threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/classify"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self):
        self.gone.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def _handler(self):
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                data = self.rfile.read(int(self.headers["Content-Length"]))
                with service._lock:
                    call = len(service.received)
                    service.received.append((dict(self.headers), json.loads(data)))
                found = service.act(call, json.loads(data))
                if found is None:  # hang up without a word
                    self.close_connection = True
                    return
                status, headers, body = found
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(OSError):  # the client may have gone
                    for start in range(0, len(body), service.chunk):
                        self.wfile.write(body[start : start + service.chunk])
                        service.gone.wait(service.drip)

            def log_message(self, *arguments):
                pass

        return Handler


@contextmanager
def serving(act=scores, port=0):
    """A service for the length of a block, at any free port."""
    service = Service(act, port)
    try:
        yield service
    finally:
        service.stop()
