"""A suspect behind HTTP that speaks the Open Inference Protocol, version 2 (KServe, Triton, MLServer, ...)."""

import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import SuspectError
from prunus.fingerprint.suspects import Batch, Suspect

FORM = "http://HOST:PORT/v2/models/NAME"
_FLOATS = {"FP32": np.float32, "FP64": np.float64, "FP16": np.float16}
_WAITS_S = (0.1, 0.5)  # between tries


@final
class EndpointError(SuspectError):
    """A query that wasn't answered, however often it was tried."""


@final
@dataclass
class Endpoint:
    """A model at an address of FORM. failures: how many requests failed so far, those that were answered later among
    them."""

    url: str
    timeout_s: float = 30.0
    waits_s: Sequence[float] = _WAITS_S
    sleep: Callable[[float], None] = time.sleep
    failures: int = field(default=0, init=False)

    def suspect(self, batch: int = 10) -> Suspect:
        """Its metadata read, to be asked so many samples at a time.

        Raises SuspectError: no such address, not version 2, not one floating-point input. EndpointError: no answer.
        """
        try:
            parts = urllib.parse.urlsplit(self.url)
            whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError as error:
            raise SuspectError(f"{self.url}: {error}, expected {FORM}") from error
        if not whole or "/v2/models/" not in parts.path:
            raise SuspectError(f"{self.url}: expected {FORM}")
        found = self._call("GET", "", None)
        inputs, outputs = found.get("inputs"), found.get("outputs")
        if not (isinstance(inputs, list) and isinstance(outputs, list) and len(inputs) == 1 and outputs):
            raise SuspectError(f"{self.url}: its metadata has no single input and an output, as the protocol has them")
        first, last = inputs[0], outputs[0]
        try:
            name, kind, shape = first["name"], first["datatype"], [int(n) for n in first["shape"]]
            output, result = last["name"], [int(n) for n in last["shape"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SuspectError(f"{self.url}: metadata of inputs or outputs without name, datatype and shape") from error
        if not isinstance(kind, str) or kind not in _FLOATS or not shape:
            raise SuspectError(f"{self.url}: takes {kind}{shape}, expected batches of {', '.join(_FLOATS)}")
        fixed = shape[0] if shape[0] > 0 else None
        return Suspect(
            self.url,
            lambda x: self._infer(x, name, kind, output, fixed or batch),
            tuple(n if n > 0 else None for n in shape[1:]),
            result[-1] if len(result) == 2 and result[-1] > 0 else None,
            fixed,
        )

    def _infer(self, x: Batch, name: str, kind: str, output: str, batch: int) -> NDArray[Any]:
        parts = []
        for i in range(0, len(x), batch):
            part = x[i : i + batch]
            tensor = {
                "name": name, "datatype": kind, "shape": list(part.shape),
                "data": part.astype(_FLOATS[kind]).ravel().tolist(),
            }  # fmt: skip
            found = self._call("POST", "/infer", {"inputs": [tensor], "outputs": [{"name": output}]})
            parts.append(_tensor(self.url, found, output))
        return np.concatenate(parts)

    def _call(self, verb: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        reason = ""
        for wait in (*self.waits_s, None):
            try:
                return self._request(verb, path, body)
            except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
                self.failures += 1
                reason = str(error) or type(error).__name__
            if wait is not None:
                self.sleep(wait)
        tries = len(self.waits_s) + 1
        raise EndpointError(f"{self.url}{path}: no answer in {tries} tries, {self.failures} failures: {reason}")

    def _request(self, verb: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Raises OSError and what http.client and json raise; SuspectError: it was understood and refused."""
        parts = urllib.parse.urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout_s)
        try:
            text = None if body is None else json.dumps(body)
            place = urllib.parse.quote(parts.path.rstrip("/") + path, safe="/%:@!$&'()*+,;=~")
            connection.request(verb, place, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if 400 <= answer.status < 500 and answer.status not in (408, 425, 429):
            said = content.decode(errors="replace")[:200]
            raise SuspectError(f"{self.url}{path}: refused with status {answer.status}: {said}")
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")
        found = json.loads(content)
        if not isinstance(found, dict):
            raise SuspectError(f"{self.url}{path}: answers a {type(found).__name__}, expected an object")
        return found


def _tensor(url: str, found: dict[str, Any], output: str) -> NDArray[Any]:
    try:
        tensor = next(t for t in found["outputs"] if t["name"] == output)
        kind = tensor["datatype"]
        array = np.array(tensor["data"], np.float64 if kind in _FLOATS else np.int64)
        return array.reshape([int(n) for n in tensor["shape"]])
    except (KeyError, TypeError, ValueError, OverflowError, StopIteration) as error:
        raise SuspectError(
            f"{url}: an answer without the output {output!r} as name, datatype, shape and data"
        ) from error
