"""A server of the Open Inference Protocol on this machine, which fails when told to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

METADATA = {
    "name": "m", "versions": ["1"], "platform": "",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
}  # fmt: skip


@dataclass
class Served:
    """What the server does. fails: which requests to infer, counted from 0, end with `status` (0: no answer)."""

    answer: Callable[[Any], Any]
    metadata: dict[str, Any] = field(default_factory=lambda: METADATA)
    fails: Callable[[int], bool] = lambda request: False
    status: int = 503
    body: bytes | None = None
    requests: int = 0
    samples: int = 0
    url: str = ""


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._send(200, json.dumps(served.metadata).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request, served.requests = served.requests, served.requests + 1
            if served.fails(request):
                if served.status:
                    self._send(served.status, b"broken")
                return
            tensor = body["inputs"][0]
            assert (tensor["name"], tensor["datatype"], body["outputs"]) == ("x", "FP32", [{"name": "y"}])
            x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
            served.samples += len(x)
            y = np.asarray(served.answer(x))
            kind = "FP32" if y.dtype.kind == "f" else "INT64"
            found = {"name": "y", "datatype": kind, "shape": list(y.shape), "data": y.ravel().tolist()}
            text = json.dumps({"model_name": "m", "outputs": [found]}).encode()
            self._send(200, text if served.body is None else served.body)

        def _send(self, status: int, text: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/v2/models/m"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
