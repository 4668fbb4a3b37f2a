"""The artefact file: magic, schema version, header length, JSON header, then aligned blobs of code and constants.

The header names the target, the program and the hash of all that follows; nothing in the file is pickled.
"""

import hashlib
import json
import os
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from prunus.errors import ArtefactError
from prunus.runtime.atomic import write_atomically
from prunus.runtime.cpu import TARGETS, describe
from prunus.runtime.lower.ops import LOWERINGS
from prunus.runtime.native import allocate
from prunus.runtime.plan import constant_offsets
from prunus.runtime.program import Chain, Op, Program, Steps, Tensor
from prunus.runtime.records import c_header

MAGIC = b"PRUNUS\r\n"
SCHEMA = 7
ALIGNMENT = 64  # bytes
_CHUNK = 1 << 20  # bytes read and hashed at a time
_HEAD = struct.Struct("<8sIIQ32s")  # magic, schema, 0, header bytes, sha256 of the header and all that follows it


def records_form() -> str:
    """What the code in an artefact takes records for: a hash of their fields."""
    return hashlib.sha256(c_header().encode()).hexdigest()[:16]


def pack(program: Program) -> tuple[Program, NDArray[np.float32]]:
    """The constants side by side in one array, and the program with views of it."""
    offsets = constant_offsets(program)
    ends = [offsets[name] + -(-array.nbytes // 4) for name, array in program.constants.items()]
    space = allocate(max(ends, default=1) + 16)
    octets = space.view(np.uint8)
    views = {}
    for name, array in program.constants.items():
        start = offsets[name] * 4
        target = octets[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        target[...] = array
        views[name] = target
    return _with_constants(program, views), space


def save(path: Path, program: Program, code: bytes) -> None:
    """Write a program and its native code.

    Raises OutputError: the file can't be written.
    """
    offsets = constant_offsets(program)
    start = _up(len(code))
    header = {
        "target": program.target,
        "records": records_form(),
        "lanes": program.lanes,
        "name": program.name,
        "batch": program.batch,
        "inputs": program.inputs,
        "outputs": program.outputs,
        "tensors": {name: asdict(tensor) for name, tensor in program.tensors.items()},
        "ops": [[op.kind, op.name, op.inputs, op.outputs, dict(op.attrs)] for op in program.ops],
        "chains": [asdict(chain) for chain in program.chains],
        "steps": None if program.steps is None else asdict(program.steps),
        "code_bytes": len(code),
        "constants": {
            name: [str(array.dtype), list(array.shape), start + offsets[name] * 4]
            for name, array in program.constants.items()
        },
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_HEAD.size + len(text)) % ALIGNMENT)
    parts: list[bytes | memoryview] = [text, code, bytes(start - len(code))]
    at = start
    for name, array in program.constants.items():
        gap = start + offsets[name] * 4 - at
        data = np.ascontiguousarray(array).ravel().view(np.uint8).data if array.size else memoryview(b"")
        parts += [bytes(gap), data]
        at += gap + array.nbytes
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    write_atomically(path, [_HEAD.pack(MAGIC, SCHEMA, 0, len(text), digest.digest()), *parts])


def read(path: Path) -> tuple[Program, bytes, NDArray[np.float32]]:
    """The program, its native code and the space of its constants.

    Raises ArtefactError: no artefact, truncated, altered, of another schema or other records, or for an ISA that this
    CPU lacks.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}") from error


def _read(file: BinaryIO, path: Path) -> tuple[Program, bytes, NDArray[np.float32]]:
    """As `read`. The constants are read to where they stay: a large network is in memory once."""
    head = file.read(_HEAD.size)
    if head[:8] != MAGIC:
        raise ArtefactError(f"{path}: not a Prunus artefact (starts with {head[:8]!r})")
    if len(head) < _HEAD.size:
        raise ArtefactError(f"{path}: truncated: {len(head)} bytes, the head alone has {_HEAD.size}")
    _, schema, zero, length, digest = _HEAD.unpack_from(head)
    if schema != SCHEMA:
        remedy = "update Prunus" if schema > SCHEMA else "compile the model again"
        raise ArtefactError(f"{path}: schema {schema}, this Prunus reads {SCHEMA}: {remedy}")
    n_bytes = os.fstat(file.fileno()).st_size
    altered = ArtefactError(f"{path}: truncated or altered: {n_bytes} bytes that don't have the hash they name")
    if zero or n_bytes < _HEAD.size + length:
        raise altered
    text = file.read(length)
    try:
        header = json.loads(text)
        code_bytes = int(header["code_bytes"])
        if not 0 <= code_bytes <= n_bytes:
            raise altered
    except (KeyError, TypeError, ValueError) as error:
        raise altered from error
    code = file.read(code_bytes)
    gap = file.read(_up(code_bytes) - code_bytes)
    space = allocate(-(-(n_bytes - file.tell()) // 4) + 16)
    held = memoryview(space.view(np.uint8))[: n_bytes - file.tell()]  # type: ignore[arg-type]
    seen = hashlib.sha256(text)
    seen.update(code)
    seen.update(gap)
    at = 0
    while at < len(held) and (got := file.readinto(held[at : at + _CHUNK])):  # type: ignore[attr-defined]
        seen.update(held[at : at + got])
        at += got
    if at < len(held) or seen.digest() != digest:
        raise altered
    try:
        return _parse(header, code, space, len(code) + len(gap), path)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise ArtefactError(f"{path}: header of schema {schema} has a fault: {error!r}") from error


def _parse(
    header: dict[str, Any], code: bytes, space: NDArray[np.float32], start: int, path: Path
) -> tuple[Program, bytes, NDArray[np.float32]]:
    target = header["target"]
    if header["records"] != records_form():
        raise ArtefactError(f"{path}: its code is of another version of Prunus: compile the model again")
    if target not in TARGETS:
        raise ArtefactError(f"{path}: compiled for {target}, which this Prunus doesn't know")
    if missing := describe().missing(target):
        raise ArtefactError(f"{path}: compiled for {target}; this CPU lacks {' '.join(missing)}")
    octets = space.view(np.uint8)
    constants = {}
    for name, (dtype, shape, offset) in header["constants"].items():
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        constants[name] = octets[offset - start : offset - start + size].view(dtype).reshape(shape)
    program = Program(
        header["name"],
        target,
        header["lanes"],
        header["batch"],
        tuple(header["inputs"]),
        tuple(header["outputs"]),
        {name: Tensor(**{**t, "shape": tuple(t["shape"])}) for name, t in header["tensors"].items()},
        tuple(Op(k, n, tuple(i), tuple(o), a) for k, n, i, o, a in header["ops"]),
        constants,
        tuple(Chain(**chain) for chain in header["chains"]),
        None if header["steps"] is None else Steps(**header["steps"]),
    )
    _check(program)
    return program, code, space


def _check(program: Program) -> None:
    """Raises ValueError: an operator that has no lowering, or a tensor that isn't declared."""
    for op in program.ops:
        if op.kind != "onnxruntime" and op.kind not in LOWERINGS:
            raise ValueError(f"{op.name}: no operator {op.kind}")
    if (steps := program.steps) is not None and (
        not steps.inputs
        or any(len(by) != len(program.tensors[name].shape) for name, by in steps.tensors.items())
        or any(not 0 <= axis < len(program.tensors[name].shape) for name, axis in steps.inputs.items())
    ):
        raise ValueError("steps of axes that tensors don't have")
    named = {*program.inputs, *program.outputs, *(n for op in program.ops for n in (*op.inputs, *op.outputs))}
    if unknown := sorted(named - set(program.tensors)):
        raise ValueError(f"no tensor {unknown[0]}")


def _with_constants(program: Program, constants: dict[str, NDArray[Any]]) -> Program:
    return Program(**{**program.__dict__, "constants": constants})


def _up(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
