"""The artefact: the same answers after loading, with numpy alone; whatever is wrong with the file is said in a line."""

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prunus
from prunus.errors import ArtefactError, OutputError
from prunus.runtime import artefact, cpu, records
from prunus.runtime.artefact import ALIGNMENT, MAGIC, SCHEMA
from prunus.runtime.session import Session
from tests.runtime.networks import NETWORKS, feeds_for

HEAD = struct.Struct("<8sIIQ32s")


def compiled(name: str, batch: int | str = 1) -> Session:
    return prunus.compile(NETWORKS[name](batch), tune="off", threads=1)


@pytest.fixture(scope="module")
def good() -> bytes:
    """The bytes of an artefact."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.prunus"
        compiled("classifier").save(path)
        return path.read_bytes()


def header_of(data: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(data[HEAD.size : HEAD.size + HEAD.unpack_from(data)[3]])
    return header


def patched(data: bytes, change: Callable[[dict[str, Any]], None], schema: int = SCHEMA) -> bytes:
    """An artefact whose header `change` has altered, with the right hash."""
    header, length = header_of(data), HEAD.unpack_from(data)[3]
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-(HEAD.size + len(text)) % ALIGNMENT)
    rest = text + data[HEAD.size + length :]
    return HEAD.pack(MAGIC, schema, 0, len(text), hashlib.sha256(rest).digest()) + rest


def refusal(path: Path, data: bytes) -> str:
    """What loading these bytes says; it must be an ArtefactError of one line that names the file."""
    path.write_bytes(data)
    with pytest.raises(ArtefactError) as caught:
        prunus.load(path)
    said = str(caught.value)
    assert "\n" not in said
    assert str(path) in said
    return said


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, "N"])
def test_same_bits_after_loading(name: str, batch: int | str, tmp_path: Path) -> None:
    session = compiled(name, batch)
    feeds = feeds_for(NETWORKS[name](batch))
    before = session.run(None, feeds)
    session.save(tmp_path / "net.prunus")
    loaded = prunus.load(tmp_path / "net.prunus", threads=1)
    for got, wanted in zip(loaded.run(None, feeds), before, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert loaded.get_inputs() == session.get_inputs()
    assert loaded.get_outputs() == session.get_outputs()
    assert loaded.explain() == session.explain()


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_again_it_is_the_same_file(name: str, tmp_path: Path) -> None:
    compiled(name, "N").save(tmp_path / "first")
    prunus.load(tmp_path / "first").save(tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_blobs_are_aligned_and_accounted_for(good: bytes) -> None:
    magic, schema, _, length, digest = HEAD.unpack_from(good)
    assert (magic, schema) == (MAGIC, SCHEMA)
    assert digest == hashlib.sha256(good[HEAD.size :]).digest()
    body, header = HEAD.size + length, header_of(good)
    assert body % ALIGNMENT == 0
    assert good[body : body + 4] == b"\x7fELF"
    ends = [header["code_bytes"]]
    for dtype, shape, offset in header["constants"].values():
        assert offset % ALIGNMENT == 0 and offset >= ends[-1]
        ends.append(offset + int(np.prod(shape)) * np.dtype(dtype).itemsize)
    assert body + ends[-1] == len(good)


NUMPY_ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED and name.partition(".")[0] not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

ALLOWED = {"numpy", "prunus"}
sys.meta_path.insert(0, Absent())
import prunus
import numpy as np
session = prunus.load(sys.argv[1], threads=1)
np.save(sys.argv[3], session.run(None, {"x": np.load(sys.argv[2])})[0])
session.profile({"x": np.load(sys.argv[2])}, rounds=1), session.explain(), session.save(sys.argv[4])
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"onnx", "onnxruntime", "onnx_ir", "typer", "rich", "torch", "platformdirs", "filelock"}, loaded
"""


def test_loads_with_numpy_alone(tmp_path: Path) -> None:
    session = compiled("strided", "N")
    feeds = feeds_for(NETWORKS["strided"]("N"), batch=2)
    session.save(tmp_path / "net.prunus")
    np.save(tmp_path / "x.npy", feeds["x"])
    files = [str(tmp_path / name) for name in ("net.prunus", "x.npy", "y.npy", "again.prunus")]
    done = subprocess.run([sys.executable, "-c", NUMPY_ALONE, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), session.run(None, feeds)[0])


def test_import_brings_numpy_alone() -> None:
    code = "import sys, prunus; print(*{name.partition('.')[0] for name in sys.modules} - {*sys.stdlib_module_names})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name for name in done.stdout.split() if not name.startswith("_")}
    assert found <= {"numpy", "prunus", "sitecustomize", "usercustomize"}, found


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_truncated(share: float, good: bytes, tmp_path: Path) -> None:
    n = int(len(good) * share)
    assert str(n) in refusal(tmp_path / "net.prunus", good[:n])


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, HEAD.size - 1, HEAD.size, HEAD.size + 10, -1])
def test_truncated_at_an_edge(n: int, good: bytes, tmp_path: Path) -> None:
    said = refusal(tmp_path / "net.prunus", good[:n])
    assert re.search("truncated|not a Prunus artefact", said)


def test_longer_than_it_was(good: bytes, tmp_path: Path) -> None:
    assert "altered" in refusal(tmp_path / "net.prunus", good + b"\0")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(region=st.integers(0, 3), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_bit_altered_anywhere(region: int, at: float, bit: int, good: bytes, tmp_path: Path) -> None:
    """In the head, the header, the code or the constants. `at` is a fraction: sizes differ from build to build."""
    _, _, _, length, _ = HEAD.unpack_from(good)
    body = HEAD.size + length
    code = body + header_of(good)["code_bytes"]
    low, high = [(0, HEAD.size), (HEAD.size, body), (body, code), (code, len(good))][region]
    altered = bytearray(good)
    altered[low + int(at * (high - low))] ^= 1 << bit
    refusal(tmp_path / "net.prunus", bytes(altered))


@pytest.mark.parametrize("place", range(HEAD.size))
def test_every_byte_of_the_head_counts(place: int, good: bytes, tmp_path: Path) -> None:
    altered = bytearray(good)
    altered[place] ^= 0xFF
    refusal(tmp_path / "net.prunus", bytes(altered))


def test_newer_schema(good: bytes, tmp_path: Path) -> None:
    said = refusal(tmp_path / "net.prunus", patched(good, lambda header: None, SCHEMA + 1))
    assert f"schema {SCHEMA + 1}" in said and f"reads {SCHEMA}" in said


def test_code_that_reads_other_records(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code would take one field for another: records changed and the number of the schema didn't."""
    for kind, names in records.RECORDS.items():
        with monkeypatch.context() as m:
            m.setitem(records.RECORDS, kind, (*names, "new"))
            other = artefact.records_form()
        assert other != artefact.records_form(), kind
    data = patched(good, lambda header: header.update(records=other))
    assert "compile the model again" in refusal(tmp_path / "net.prunus", data)


def test_isa_that_this_cpu_lacks(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another architecture by name, and a CPU without the features of the file's own target."""
    foreign = "aarch64-neon" if cpu.describe().machine != "aarch64" else "x86-64-avx2"
    said = refusal(tmp_path / "net.prunus", patched(good, lambda header: header.update(target=foreign)))
    assert foreign in said and "lacks" in said
    missing = patched(good, lambda header: header.update(target="x86-64-imaginary"))
    monkeypatch.setitem(cpu.TARGETS, "x86-64-imaginary", (cpu.describe().machine, ("flux", "warp")))
    assert "flux warp" in refusal(tmp_path / "net.prunus", missing)


def test_unknown_target(good: bytes, tmp_path: Path) -> None:
    said = refusal(tmp_path / "net.prunus", patched(good, lambda header: header.update(target="riscv64-v")))
    assert "riscv64-v" in said


def _remove(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda header: header.pop(key)


def _constant(index: int, value: Any) -> Callable[[dict[str, Any]], None]:
    """Change dtype (0), shape (1) or offset (2) of the first constant."""

    def change(header: dict[str, Any]) -> None:
        next(iter(header["constants"].values()))[index] = value

    return change


FAULTS: dict[str, Callable[[dict[str, Any]], None]] = {
    **{f"without {key}": _remove(key) for key in ("target", "ops", "tensors", "constants", "code_bytes", "inputs")},
    "ops of another form": lambda header: header.update(ops=[["conv", "c"]]),
    "an operator nobody knows": lambda header: header["ops"][0].__setitem__(0, "warp"),
    "a tensor nobody declared": lambda header: header["ops"][0][2].__setitem__(0, "ghost"),
    "an input nobody declared": lambda header: header.update(inputs=["ghost"]),
    "more code than bytes": lambda header: header.update(code_bytes=1 << 40),
    "negative code": lambda header: header.update(code_bytes=-5),
    "a dtype nobody knows": _constant(0, "float99"),
    "a dtype of objects": _constant(0, "object"),
    "a shape beyond the file": _constant(1, [1 << 40]),
    "an offset beyond the file": _constant(2, 1 << 50),
    "an offset before the constants": _constant(2, 0),
    "a list": lambda header: header.update(tensors=[1, 2]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_header_with_a_fault(fault: str, good: bytes, tmp_path: Path) -> None:
    """The hash fits, what it covers doesn't: written by something else."""
    refusal(tmp_path / "net.prunus", patched(good, FAULTS[fault]))


def test_header_that_is_no_json(good: bytes, tmp_path: Path) -> None:
    rest = b"{" * 64 + good[HEAD.size :]
    data = HEAD.pack(MAGIC, SCHEMA, 0, 64, hashlib.sha256(rest).digest()) + rest
    assert "header" in refusal(tmp_path / "net.prunus", data)


def test_code_that_is_no_library(good: bytes, tmp_path: Path) -> None:
    """The system's loader refuses it, and the message says so."""
    length = HEAD.unpack_from(good)[3]
    body = HEAD.size + length
    rest = bytearray(good[HEAD.size :])
    rest[length : length + 64] = b"\0" * 64
    data = HEAD.pack(MAGIC, SCHEMA, 0, length, hashlib.sha256(rest).digest()) + bytes(rest)
    assert good[body : body + 4] == b"\x7fELF"
    assert "can't be loaded" in refusal(tmp_path / "net.prunus", data)


@pytest.mark.parametrize("text", [b"", b"onnx", b"PK\x03\x04" + b"\0" * 100, MAGIC])
def test_other_files(text: bytes, tmp_path: Path) -> None:
    refusal(tmp_path / "net.prunus", text)


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"absent\.prunus: No such file"):
        prunus.load(tmp_path / "absent.prunus")
    with pytest.raises(ArtefactError, match="directory"):
        prunus.load(tmp_path)


def test_a_file_that_may_not_be_read(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.prunus"
    path.write_bytes(good)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read anything")
    with pytest.raises(ArtefactError, match="Permission"):
        prunus.load(path)


def test_saving_replaces_only_when_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in the middle: the old file stays as it was, nothing else does."""
    path = tmp_path / "net.prunus"
    path.write_bytes(b"old")
    session = compiled("residual")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"net\.prunus.*No space left on device"):
            session.save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    session.save(path)
    assert path.read_bytes()[:8] == MAGIC


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_device() -> None:
    with pytest.raises(OutputError, match=r"/dev/full.*No space left on device"):
        compiled("residual").save("/dev/full")


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
def test_disk_full_for_real(tmp_path: Path) -> None:
    """The system itself stops the write half-way."""
    import resource
    import signal

    session = compiled("residual")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"net\.prunus.*too large"):
            session.save(tmp_path / "net.prunus")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["missing/net.prunus", ".", "file/net.prunus"])
def test_unwritable(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        compiled("residual").save(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_readonly_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write anywhere")
        with pytest.raises(OutputError, match="Permission"):
            compiled("residual").save(folder / "net.prunus")
    finally:
        folder.chmod(0o700)
