"""The .fp file: magic, schema, a JSON header and the examples as bytes, each field with a hash of its own.

So an altered file is refused by the name of what was altered, and what follows from the secret is computed anew.
"""

import hashlib
import json
import math
import struct
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prunus.errors import FingerprintError
from prunus.fingerprint.domain import Domain, Levels
from prunus.fingerprint.method import Method
from prunus.fingerprint.secret import N_BYTES, starts_of, targets_of
from prunus.runtime.atomic import SECRET, write_atomically

MAGIC: Final = b"PRUNUSFP"
SCHEMA: Final = 1
_HEAD = struct.Struct("<8sIQ")  # magic, schema, bytes of the header
_HEX = r"^[0-9a-f]{64}$"


@final
@dataclass(frozen=True)
class NullModel:
    """An independent model that was asked before any dispute: how many examples it matched."""

    name: str
    digest: str
    matches: int


@final
@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Examples of an owner's network and all that a claim rests on. It is secret until there is a dispute.

    model: SHA-256 of the network's file. first: what the network called each start; own: how many examples it calls
    their target. examples, starts: uint8[n, *shape]; starts are stored where they are pictures (origin "images"), for
    noise follows from the secret. created: UTC, ISO 8601. alpha: the false-claim probability that was stated.
    """

    name: str
    model: str
    domain: Domain
    classes: int
    method: Method
    secret: bytes
    salt: bytes
    created: str
    alpha: float
    first: tuple[int, ...]
    targets: NDArray[np.int64]
    examples: Levels
    own: int
    null: tuple[NullModel, ...] = ()
    origin: str = "noise"
    starts: Levels | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample."""
        return self.domain.shape

    @cached_property
    def root(self) -> str:
        """SHA-256 over the hashes of all fields: what a commitment binds."""
        return _root(_digests(_fields(self), self._blobs()))

    def _blobs(self) -> dict[str, bytes]:
        return {"examples": self.examples.tobytes(), "starts": b"" if self.starts is None else self.starts.tobytes()}


class _Null(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    digest: str
    matches: int = Field(ge=0)


class _Header(BaseModel):
    """The fields of a header as JSON has them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    model: str = Field(pattern=_HEX)
    shape: list[Annotated[int, Field(ge=1, le=2**31)]] = Field(min_length=2, max_length=3)
    low: list[float] = Field(min_length=1)
    high: list[float] = Field(min_length=1)
    classes: int = Field(ge=2, le=2**31)
    method: dict[str, Any]
    secret: str = Field(pattern=_HEX)
    salt: str = Field(pattern=_HEX)
    created: str
    alpha: float = Field(gt=0, lt=1)
    first: list[int] = Field(min_length=1)
    targets: list[Annotated[int, Field(ge=0, le=2**31)]] = Field(min_length=1)
    own: int = Field(ge=0)
    null: list[_Null]
    origin: str = Field(pattern="^(noise|images)$")


def write_fingerprint(path: Path, fingerprint: Fingerprint) -> None:
    """Write it whole or not at all. Raises OutputError: it can't be written."""
    fields, blobs = _fields(fingerprint), fingerprint._blobs()
    digests = _digests(fields, blobs)
    header = _canonical({**fields, "digests": digests, "root": _root(digests)})
    write_atomically(path, [_HEAD.pack(MAGIC, SCHEMA, len(header)), header, blobs["starts"], blobs["examples"]], SECRET)


def read_fingerprint(path: Path) -> Fingerprint:
    """What `write_fingerprint` wrote.

    Raises FingerprintError: it isn't that, or was altered since: names the field, what was found and expected.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FingerprintError(f"{path}: {error.strerror or error}") from error
    if len(data) < _HEAD.size or data[:8] != MAGIC:
        raise FingerprintError(f"{path}: not a fingerprint: found {data[:8]!r}, expected {MAGIC!r}")
    _, schema, length = _HEAD.unpack_from(data)
    if schema != SCHEMA:
        raise FingerprintError(f"{path}: schema: found {schema}, expected {SCHEMA}")
    text, blob = data[_HEAD.size : _HEAD.size + length], data[_HEAD.size + length :]
    if len(text) < length:
        raise FingerprintError(f"{path}: header: found {len(text)} bytes, expected {length}: the file is cut off")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FingerprintError(f"{path}: header: not JSON: it was altered") from error
    if not isinstance(found, dict):
        raise FingerprintError(f"{path}: header: found a {type(found).__name__}, expected an object")
    return _checked(path, found, blob)


def _checked(path: Path, found: dict[str, Any], blob: bytes) -> Fingerprint:
    digests, root = found.pop("digests", None), found.pop("root", None)
    if not isinstance(digests, dict):
        raise FingerprintError(f"{path}: digests: found a {type(digests).__name__}, expected an object")
    try:
        header = _Header.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "header"
        raise FingerprintError(f"{path}: {field}: found {first['input']!r:.80}: {first['msg']}") from error
    size = len(header.targets) * math.prod(header.shape)
    expected = size * (2 if header.origin == "images" else 1)
    if len(blob) != expected:
        raise FingerprintError(f"{path}: examples: found {len(blob)} bytes, expected {expected}")
    blobs = {"starts": blob[:-size], "examples": blob[-size:]}
    now = _digests(found, blobs)
    for field in (*now, *digests):
        if digests.get(field) != now.get(field):
            raise FingerprintError(
                f"{path}: {field}: was altered: its hash is {str(now.get(field))[:16]}, expected "
                f"{str(digests.get(field))[:16]}"
            )
    if root != _root(now):
        raise FingerprintError(f"{path}: root: found {str(root)[:16]}, expected {_root(now)[:16]}")
    made = _built(path, header, blobs)
    _check_choice(path, made)
    return made


def _built(path: Path, header: _Header, blobs: dict[str, bytes]) -> Fingerprint:
    shape = (len(header.targets), *header.shape)
    try:
        domain = Domain(tuple(header.shape), tuple(header.low), tuple(header.high))
    except FingerprintError as error:
        raise FingerprintError(f"{path}: low, high: {error}") from error
    try:
        method = Method(**header.method)
    except (TypeError, FingerprintError) as error:
        raise FingerprintError(f"{path}: method: {error}") from error
    return Fingerprint(
        header.name, header.model, domain, header.classes, method, bytes.fromhex(header.secret),
        bytes.fromhex(header.salt), header.created, header.alpha, tuple(header.first),
        np.array(header.targets, np.int64), np.frombuffer(blobs["examples"], np.uint8).reshape(shape), header.own,
        tuple(NullModel(null.name, null.digest, null.matches) for null in header.null), header.origin,
        np.frombuffer(blobs["starts"], np.uint8).reshape(shape) if header.origin == "images" else None,
    )  # fmt: skip


def _check_choice(path: Path, made: Fingerprint) -> None:
    """What the owner had no choice in: targets and starts follow from the secret, examples are near their starts."""
    n = len(made.targets)
    assert len(made.secret) == N_BYTES
    if len(made.first) != n:
        raise FingerprintError(f"{path}: first: found {len(made.first)} labels, expected {n}")
    if wrong := [label for label in made.first if not 0 <= label < made.classes]:
        raise FingerprintError(f"{path}: first: found label {wrong[0]}, expected 0 to {made.classes - 1}")
    if targets_of(made.secret, made.first, made.classes) != made.targets.tolist():
        raise FingerprintError(f"{path}: targets: they don't follow from the secret")
    starts = starts_of(made.secret, n, made.shape) if made.starts is None else made.starts
    far = int(np.abs(made.examples.astype(np.int16) - starts).max())
    if far > made.method.most:
        raise FingerprintError(f"{path}: examples: found one {far} levels from its start, expected {made.method.most}")
    if made.own > n:
        raise FingerprintError(f"{path}: own: found {made.own} matches, expected {n} at most")
    for null in made.null:
        if null.matches > n:
            raise FingerprintError(f"{path}: null: found {null.matches} matches of {null.name}, expected {n} at most")


def _fields(made: Fingerprint) -> dict[str, Any]:
    return {
        "name": made.name, "model": made.model, "shape": list(made.shape), "low": list(made.domain.low),
        "high": list(made.domain.high), "classes": made.classes, "method": asdict(made.method),
        "secret": made.secret.hex(), "salt": made.salt.hex(), "created": made.created, "alpha": made.alpha,
        "first": list(made.first), "targets": made.targets.tolist(), "own": made.own,
        "null": [asdict(null) for null in made.null], "origin": made.origin,
    }  # fmt: skip


def _digests(fields: dict[str, Any], blobs: dict[str, bytes]) -> dict[str, str]:
    found = {name: hashlib.sha256(_canonical(value)).hexdigest() for name, value in fields.items()}
    return {**found, **{name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}}


def _root(digests: dict[str, str]) -> str:
    return hashlib.sha256(_canonical(digests)).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
