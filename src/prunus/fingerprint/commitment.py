"""A commitment: what an owner publishes before any dispute, so that no examples can be made up after the fact.

It is a hash of the fingerprint's root, its salt and a time; who sees it learns nothing of the examples. A signature
says whose it is. That it was there at its time others have to attest: a signed tag, a log, a letter.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from prunus.errors import FingerprintError
from prunus.extras import missing_package
from prunus.fingerprint.file import Fingerprint
from prunus.runtime.atomic import SECRET, write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VERSION: Final = 1
_FIELDS: Final = ("version", "hash", "time", "public_key", "signature")


@final
@dataclass(frozen=True)
class Commitment:
    """hash: SHA-256 of root, salt and time. time: UTC, ISO 8601. public_key, signature: Ed25519, hexadecimal, or ""."""

    version: int
    hash: str
    time: str
    public_key: str = ""
    signature: str = ""


def commit(fingerprint: Fingerprint, key: Path | None = None, time: datetime | None = None) -> Commitment:
    """To a fingerprint as it is now; signed by the private key in a PEM file, which is made where there is none.

    Raises FingerprintError: the file isn't an Ed25519 key without a password. MissingExtraError: `cryptography` isn't
    installed. OutputError: the key can't be written.
    """
    when = (time or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    made = Commitment(VERSION, _hash(fingerprint, when), when)
    if key is None:
        return made
    private = _key(key)
    return Commitment(
        VERSION, made.hash, when, private.public_key().public_bytes_raw().hex(), private.sign(_signed(made)).hex()
    )


def write_commitment(path: Path, commitment: Commitment) -> None:
    """As JSON, to be published. Raises OutputError: it can't be written."""
    write_atomically(path, (json.dumps(asdict(commitment), indent=1) + "\n").encode())


def read_commitment(path: Path) -> Commitment:
    """What `write_commitment` wrote. Raises FingerprintError: it isn't that; names the field."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise FingerprintError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FingerprintError(f"{path}: not JSON, expected a commitment") from error
    if not isinstance(found, dict):
        raise FingerprintError(f"{path}: found a {type(found).__name__}, expected an object")
    for name in (*_FIELDS, *found):
        value = found.get(name)
        kind = int if name == "version" else str
        if name not in _FIELDS or not isinstance(value, kind):
            expected = kind.__name__ if name in _FIELDS else f"one of {', '.join(_FIELDS)}"
            raise FingerprintError(f"{path}: {name}: found {value!r:.80}, expected {expected}")
    if found["version"] != VERSION:
        raise FingerprintError(f"{path}: version: found {found['version']}, expected {VERSION}")
    return Commitment(**found)


def check_commitment(
    commitment: Commitment, fingerprint: Fingerprint, where: str = "commitment", before: datetime | None = None
) -> None:
    """That the fingerprint is the one committed to, that the signature is the key's, and that it was made before the
    suspect was seen.

    Raises FingerprintError: not so; names the field. MissingExtraError: signed, and `cryptography` isn't installed.
    """
    when = _time(commitment.time, where)
    if commitment.public_key or commitment.signature:
        _check_signature(commitment, where)
    expected = _hash(fingerprint, commitment.time)
    if commitment.hash != expected:
        raise FingerprintError(
            f"{where}: hash: found {commitment.hash[:16]}, expected {expected[:16]}: it is to another fingerprint, or "
            "one of the two was altered"
        )
    if before is None:
        return
    try:
        before = before.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise FingerprintError(
            f"{where}: time: found {before} as that of the suspect, expected a later year"
        ) from error
    if when >= before:
        seen = before.isoformat(timespec="seconds")
        raise FingerprintError(
            f"{where}: time: found {commitment.time}, expected before {seen}, when the suspect was seen"
        )


def _hash(fingerprint: Fingerprint, time: str) -> str:
    return hashlib.sha256(b"\0".join((fingerprint.root.encode(), fingerprint.salt, time.encode()))).hexdigest()


def _signed(commitment: Commitment) -> bytes:
    return f"prunus commitment {commitment.version} {commitment.hash} {commitment.time}".encode()


def _time(text: str, where: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise FingerprintError(f"{where}: time: found {text!r:.80}, expected ISO 8601") from error
    try:
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise FingerprintError(f"{where}: time: found {text!r:.80}, which isn't one") from error


def _key(path: Path) -> "Ed25519PrivateKey":
    serialization, ed25519 = _cryptography()
    if not path.exists():
        made: Ed25519PrivateKey = ed25519.Ed25519PrivateKey.generate()
        coded = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(path, coded, SECRET)
        return made
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise FingerprintError(f"{path}: not a private key in PEM without a password") from error
    if not isinstance(found, ed25519.Ed25519PrivateKey):
        raise FingerprintError(f"{path}: found a key of another kind, expected Ed25519")
    key: Ed25519PrivateKey = found
    return key


def _check_signature(commitment: Commitment, where: str) -> None:
    _, ed25519 = _cryptography()
    from cryptography.exceptions import InvalidSignature

    try:
        public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(commitment.public_key))
    except ValueError as error:
        raise FingerprintError(
            f"{where}: public_key: found {commitment.public_key!r:.80}, expected 32 bytes"
        ) from error
    try:
        public.verify(bytes.fromhex(commitment.signature), _signed(commitment))
    except (InvalidSignature, ValueError) as error:
        raise FingerprintError(f"{where}: signature: it isn't that of public_key over hash and time") from error


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise missing_package("a signature", error) from error
    return serialization, ed25519
