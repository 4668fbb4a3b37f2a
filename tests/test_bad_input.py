"""Bad input: a PrunusError whose one line has the facts; on the command line exit code 2, and no file is left."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import prunus
from prunus.cli.main import BAD_INPUT, DONE, run
from prunus.errors import (
    CalibrationError,
    FeedError,
    ModelError,
    OutputError,
    PrunusError,
    TargetError,
    ToolchainError,
    UnsupportedError,
)
from prunus.runtime.artefact import SCHEMA
from tests.runtime.networks import NETWORKS, Net, classifier, feeds_for, partitioned, residual

GOOD = residual().SerializeToString()


def altered(change: Callable[[onnx.ModelProto], object], model: onnx.ModelProto | None = None) -> bytes:
    """The bytes of a model that `change` has spoilt."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model or residual())
    change(proto)
    return proto.SerializeToString()


def opset(version: int) -> bytes:
    return altered(lambda proto: setattr(proto.opset_import[0], "version", version))


def unknown_operator(domain: str = "") -> bytes:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.node[1].op_type = "Warp"
        proto.graph.node[1].domain = domain
        if domain:
            proto.opset_import.append(helper.make_opsetid(domain, 1))

    return altered(change)


def with_weight(value: float, name: str = "w0") -> bytes:
    """One element of a weight is `value`."""

    def change(proto: onnx.ModelProto) -> None:
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        array = numpy_helper.to_array(tensor).copy()
        array.flat[3] = value
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    return altered(change)


def symbolic_height() -> bytes:
    net = Net({"x": ("N", 3, "H", 9)})
    return net.model(net.conv("x", 4, 3)).SerializeToString()


def without_shape() -> bytes:
    return altered(lambda proto: proto.graph.input[0].type.tensor_type.ClearField("shape"))


def contradiction() -> bytes:
    """The convolution's weight has 3 channels, its input 5."""
    return altered(lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 5))


def wrong_gemm() -> bytes:
    """A fully connected layer whose matrix doesn't fit."""
    net = Net({"x": (1, 7)})
    return net.model(net.add("Gemm", "x", net.weight(4, 6), net.weight(4), transB=1)).SerializeToString()


def wrong_bias() -> bytes:
    net = Net({"x": (1, 3, 8, 8)})
    return net.model(net.add("Conv", "x", net.weight(4, 3, 1, 1), net.weight(5))).SerializeToString()


def dangling() -> bytes:
    """A node reads what nothing makes."""
    return altered(lambda proto: proto.graph.node[1].input.__setitem__(0, "ghost"))


def cycle() -> bytes:
    """Two nodes that each need the other."""
    return altered(lambda proto: proto.graph.node[0].input.__setitem__(0, "t2"))


def short_weight() -> bytes:
    """Fewer bytes than the shape says."""
    return altered(lambda proto: setattr(proto.graph.initializer[0], "raw_data", b"\0" * 8))


def misspelt_attribute() -> bytes:
    """A padding that would be ignored."""

    def change(proto: onnx.ModelProto) -> None:
        next(a for a in proto.graph.node[0].attribute if a.name == "pads").name = "pids"

    return altered(change)


def attribute_without_type() -> bytes:
    return altered(lambda proto: setattr(proto.graph.node[0].attribute[0], "type", 0))


def operator_of_a_later_opset() -> bytes:
    net = Net({"x": (1, 3, 8, 8)})
    return net.model(net.add("HardSwish", "x"), opset=13).SerializeToString()


def sequence_input() -> bytes:
    net = Net({"x": (1, 3, 8, 8)})
    model = net.model(net.conv("x", 4, 3))
    info = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    model.graph.input[0].CopyFrom(info)
    return model.SerializeToString()


@dataclass(frozen=True)
class Bad:
    """Bytes of a model, options of compile, the error, and what its message must have."""

    make: Callable[[], bytes]
    error: type[PrunusError]
    facts: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


NEWEST = onnx.defs.onnx_opset_version()
MODELS: dict[str, Bad] = {
    "not ONNX": Bad(lambda: b"this is a text file, not a network\n" * 20, ModelError, ("not an ONNX model",)),
    "a picture": Bad(lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)), ModelError, ("not an ONNX model",)),
    "empty": Bad(lambda: b"", ModelError, ("not an ONNX model",)),
    "zeros": Bad(lambda: bytes(1000), ModelError, ("not an ONNX model",)),
    "truncated by a byte": Bad(lambda: GOOD[:-1], ModelError, ("truncated",)),
    "truncated in half": Bad(lambda: GOOD[: len(GOOD) // 2], ModelError, ("truncated",)),
    "opset too old": Bad(lambda: opset(6), ModelError, ("opset 6", "9", str(NEWEST))),
    "opset too new": Bad(lambda: opset(NEWEST + 1), ModelError, (f"opset {NEWEST + 1}", "9", str(NEWEST))),
    "opset absent": Bad(lambda: altered(lambda proto: proto.ClearField("opset_import")), ModelError, ("opset",)),
    "operator that no engine knows": Bad(unknown_operator, UnsupportedError, ("Warp", "relu1")),
    "operator of another domain": Bad(
        lambda: unknown_operator("com.acme"), UnsupportedError, ("com.acme.Warp", "relu1")
    ),
    "unknown operator, no fallback": Bad(unknown_operator, UnsupportedError, ("Warp", "relu1"), {"fallback": None}),
    "not compiled, no fallback": Bad(
        lambda: partitioned().SerializeToString(), UnsupportedError, ("LRN", "lrn2"), {"fallback": None}
    ),
    "symbolic height": Bad(symbolic_height, ModelError, ("'x'", "H", "dimension 2", "--input-shape")),
    "input without a shape": Bad(without_shape, ModelError, ("'x'", "no shape")),
    "input that is no tensor": Bad(sequence_input, PrunusError, ("'x'",)),
    "NaN weight": Bad(lambda: with_weight(np.nan), ModelError, ("'w0'", "1 of", "NaN")),
    "infinite weight": Bad(lambda: with_weight(-np.inf), ModelError, ("'w0'", "1 of", "infinite")),
    "NaN bias": Bad(lambda: with_weight(np.nan, "w1"), ModelError, ("'w1'", "NaN")),
    "weight with missing bytes": Bad(short_weight, ModelError, ("'w0'",)),
    "convolution that contradicts its input": Bad(contradiction, ModelError, ("conv0", "5", "3")),
    "matrix that contradicts its input": Bad(wrong_gemm, PrunusError, ("gemm0", "7", "6")),
    "bias of another length": Bad(wrong_bias, ModelError, ("conv0", "5", "4")),
    "attribute that the operator lacks": Bad(misspelt_attribute, ModelError, ("conv0", "'pids'", "pads")),
    "attribute without a type": Bad(attribute_without_type, ModelError, ("conv0", "kernel_shape")),
    "operator of a later opset": Bad(operator_of_a_later_opset, ModelError, ("hardswish0", "HardSwish", "opset 13")),
    "name that is no text": Bad(lambda: GOOD.replace(b"relu1", b"rel\xff1"), ModelError, ("Relu", "UTF-8")),
    "operator that is no text": Bad(lambda: GOOD.replace(b"Relu", b"Re\xfeu"), ModelError, ("UTF-8",)),
    "integer weight with missing bytes": Bad(
        lambda: altered(lambda proto: setattr(proto.graph.initializer[0], "data_type", TensorProto.INT64)),
        ModelError, ("'w0'",),
    ),
    "value that nothing makes": Bad(dangling, ModelError, ("relu1", "'ghost'")),
    "cycle": Bad(cycle, ModelError, ("conv0", "'t2'")),
    "output that nothing makes": Bad(
        lambda: altered(lambda proto: setattr(proto.graph.output[0], "name", "ghost")), ModelError, ("'ghost'",)
    ),
    "shape for no input": Bad(lambda: GOOD, FeedError, ("'y'", "x"), {"input_shapes": {"y": (1, 3, 10, 9)}}),
    "shape of another rank": Bad(lambda: GOOD, FeedError, ("x=[1, 3]", "4"), {"input_shapes": {"x": (1, 3)}}),
    "shape that is negative": Bad(lambda: GOOD, FeedError, ("-3",), {"input_shapes": {"x": (1, -3, 10, 9)}}),
    "shape with other channels": Bad(lambda: GOOD, PrunusError, ("5",), {"input_shapes": {"x": (1, 5, 10, 9)}}),
    "unknown target": Bad(lambda: GOOD, TargetError, ("'pdp-11'", "x86-64-avx2"), {"target": "pdp-11"}),
    "target of another CPU": Bad(
        lambda: GOOD, TargetError, ("lacks",),
        {"target": "aarch64-neon" if os.uname().machine != "aarch64" else "x86-64-avx2"},
    ),
    "unknown precision": Bad(lambda: GOOD, TargetError, ("'int4'", "int8"), {"precision": "int4"}),
    "int8 without calibration": Bad(lambda: GOOD, CalibrationError, ("int8", "no calibration"), {"precision": "int8"}),
    "no calibration batches": Bad(
        lambda: GOOD, CalibrationError, ("no batches",), {"precision": "int8", "calibration": []}
    ),
    "calibration that isn't finite": Bad(
        lambda: GOOD, CalibrationError, ("batch 0", "'x'", "NaN"),
        {"precision": "int8", "calibration": [{"x": np.full((1, 3, 10, 9), np.nan, np.float32)}]},
    ),
    "calibration of another shape": Bad(
        lambda: GOOD, FeedError, ("batch 1", "[1, 2, 10, 9]", "3, 10, 9"),
        {
            "precision": "int8",
            "calibration": [{"x": np.ones((1, c, 10, 9), np.float32)} for c in (3, 2)],
        },
    ),
    "calibration by another name": Bad(
        lambda: GOOD, FeedError, ("batch 0", "'a'", "x"),
        {"precision": "int8", "calibration": [{"a": np.ones((1, 3, 10, 9), np.float32)}]},
    ),
    "unknown calibration method": Bad(
        lambda: GOOD, TargetError, ("'entropy'", "percentile"), {"precision": "int8", "calibration_method": "entropy"}
    ),
    "budget that is none": Bad(lambda: GOOD, TargetError, ("-1", "positive"), {"error_budget": -1.0}),
    "budget without data": Bad(
        lambda: GOOD, CalibrationError, ("0.1", "calibration"), {"precision": "bf16", "error_budget": 0.1}
    ),
    "precision nobody knows": Bad(lambda: GOOD, PrunusError, ("'fp33'", "fp32"), {"precision": "fp33"}),
    "tune": Bad(lambda: GOOD, TargetError, ("'max'", "off", "fast", "full"), {"tune": "max"}),
    "fallback": Bad(lambda: GOOD, TargetError, ("'tvm'", "onnxruntime"), {"fallback": "tvm"}),
    "no threads": Bad(lambda: GOOD, TargetError, ("threads=0",), {"threads": 0}),
    "negative threads": Bad(lambda: GOOD, TargetError, ("threads=-2",), {"threads": -2}),
    "threads that are no number": Bad(lambda: GOOD, TargetError, ("threads='two'",), {"threads": "two"}),
    "threads as a fraction": Bad(lambda: GOOD, TargetError, ("threads=1.5",), {"threads": 1.5}),
    "no streams": Bad(lambda: GOOD, TargetError, ("streams=0",), {"streams": 0}),
    "streams that are no number": Bad(lambda: GOOD, TargetError, ("streams='two'",), {"streams": "two"}),
    "compiler that isn't there": Bad(lambda: GOOD, ToolchainError, ("'/no/such/cc'",), {"cc": "/no/such/cc"}),
    "compiler that fails": Bad(lambda: GOOD, ToolchainError, ("false",), {"cc": "false"}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment of the caller's."""
    monkeypatch.delenv("PRUNUS_CC", raising=False)


@pytest.mark.parametrize("name", MODELS)
def test_compile(name: str) -> None:
    bad = MODELS[name]
    with pytest.raises(bad.error) as caught:
        prunus.compile(bad.make(), **{"tune": "off", "threads": 1, **bad.options})
    said = str(caught.value)
    assert "\n" not in said and len(said) < 400
    for fact in bad.facts:
        assert fact in said


@pytest.mark.parametrize("fallback", ["onnxruntime", None])
def test_files_are_named(fallback: str | None, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    faults = ("not ONNX", "truncated in half", "opset too old", "NaN weight", "value that nothing makes")
    for name in (*faults, "symbolic height", "operator that no engine knows"):
        path.write_bytes(MODELS[name].make())
        with pytest.raises(MODELS[name].error, match=re.escape(str(path))):
            prunus.compile(path, tune="off", fallback=fallback)
    with pytest.raises(ModelError, match=r"absent\.onnx: No such file"):
        prunus.compile(tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match="directory"):
        prunus.compile(tmp_path)


def test_weights_beside_the_file_that_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(residual(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert prunus.compile(path, tune="off").get_inputs()
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"net\.onnx.*weights\.bin"):
        prunus.compile(path, tune="off")


def test_a_byte_altered_anywhere() -> None:
    """A damaged file is refused in one line, or is another network; nothing else comes out."""
    rng = np.random.default_rng(0)
    for place in rng.integers(0, min(len(GOOD), 1200), 60):
        data = bytearray(GOOD)
        data[place] ^= int(rng.integers(1, 256))
        try:
            prunus.compile(bytes(data), tune="off", threads=1)
        except PrunusError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("length", [1, 10, 100, 500, 1000, 3000])
def test_truncated_anywhere(length: int) -> None:
    """Wherever it is cut, a model is refused: protobuf alone would accept some of them."""
    with pytest.raises(PrunusError) as caught:
        prunus.compile(GOOD[:length], tune="off")
    assert "\n" not in str(caught.value)


def good(dtype: str = "float32", shape: tuple[int, ...] = (1, 3, 6, 6)) -> np.ndarray:
    return np.ones(shape, dtype)


FEEDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "another name": ({"a": good(), "b": good(), "image": good()}, ("'image'", "a, b")),
    "missing": ({"a": good()}, ("'b'", "missing")),
    "nothing": ({}, ("'a'", "missing")),
    "float64": ({"a": good("float64"), "b": good()}, ("'a'", "float64", "float32")),
    "uint8": ({"a": good(), "b": good("uint8")}, ("'b'", "uint8", "float32")),
    "a list": ({"a": [[1.0]], "b": good()}, ("'a'", "float64", "float32")),
    "objects": ({"a": np.array([None]), "b": good()}, ("'a'", "object", "float32")),
    "rank": ({"a": good(shape=(3, 6, 6)), "b": good()}, ("'a'", "[3, 6, 6]", "3, 6, 6]")),
    "channels": ({"a": good(shape=(1, 4, 6, 6)), "b": good()}, ("'a'", "[1, 4, 6, 6]", "3, 6, 6]")),
    "size": ({"a": good(), "b": good(shape=(1, 3, 6, 7))}, ("'b'", "[1, 3, 6, 7]", "3, 6, 6]")),
    "no images": ({"a": good(shape=(0, 3, 6, 6)), "b": good(shape=(0, 3, 6, 6))}, ("'a'", "[0, 3, 6, 6]")),
    "mixed batch sizes": ({"a": good(shape=(2, 3, 6, 6)), "b": good(shape=(3, 3, 6, 6))}, ("2", "3")),
}


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("name", FEEDS)
def test_feeds(name: str, loaded: bool, tmp_path: Path) -> None:
    """Whether the model is at hand or not; and the session still works after each."""
    session = prunus.compile(NETWORKS["two_ports"]("N"), tune="off", threads=1)
    if loaded:
        session.save(tmp_path / "net.prunus")
        session = prunus.load(tmp_path / "net.prunus", threads=1)
    feeds, facts = FEEDS[name]
    for attempt in (session.run, session.profile):
        with pytest.raises(FeedError) as caught:
            attempt(None, feeds) if attempt == session.run else attempt(feeds)  # type: ignore[operator]
        said = str(caught.value)
        assert "\n" not in said
        for fact in facts:
            assert fact in said
    assert len(session.run(None, {"a": good(), "b": good()})) == 2


def test_fixed_batch_is_not_fed_another() -> None:
    session = prunus.compile(residual(1), tune="off", threads=1)
    with pytest.raises(FeedError, match=r"'x'.*\[2, 3, 10, 9\].*\[1, 3, 10, 9\]"):
        session.run(None, feeds_for(residual("N"), 2))


def test_unknown_output() -> None:
    session = prunus.compile(residual(), tune="off", threads=1)
    with pytest.raises(FeedError, match=r"'logits'.*t6"):
        session.run(["logits"], feeds_for(residual()))


def test_errors_are_what_a_caller_expects() -> None:
    """Bad values are ValueErrors too, files that can't be written OSErrors."""
    assert issubclass(FeedError, ValueError) and issubclass(TargetError, ValueError)
    assert issubclass(OutputError, OSError)


def test_threads_and_streams_of_a_loaded_artefact(tmp_path: Path) -> None:
    prunus.compile(residual(), tune="off").save(tmp_path / "net.prunus")
    for count in (0, -1, "two"):
        for option in ("threads", "streams"):
            with pytest.raises(TargetError, match=f"{option}="):
                prunus.load(tmp_path / "net.prunus", **{option: count})  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a good model, artefact and input, and a bad one of each kind."""
    monkeypatch.chdir(tmp_path)
    Path("good.onnx").write_bytes(GOOD)
    prunus.compile(GOOD, tune="off").save("good.prunus")
    data = Path("good.prunus").read_bytes()
    Path("short.prunus").write_bytes(data[: len(data) // 2])
    Path("altered.prunus").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    Path("nothing").mkdir()
    (Path("nothing") / "readme.txt").write_text("no image")
    np.savez("nan.npz", x=np.full((1, 3, 10, 9), np.nan, np.float32))
    Path("newer.prunus").write_bytes(data[:8] + b"\x63\0\0\0" + data[12:])
    for name in ("not ONNX", "opset too new", "NaN weight", "symbolic height", "operator that no engine knows"):
        Path(f"{name.replace(' ', '-')}.onnx").write_bytes(MODELS[name].make())
    Path("lrn.onnx").write_bytes(partitioned().SerializeToString())
    np.save("x.npy", feeds_for(residual())["x"])
    np.save("double.npy", feeds_for(residual())["x"].astype(np.float64))
    np.save("small.npy", np.ones((1, 3, 4, 4), np.float32))
    np.savez("named.npz", image=np.ones((1, 3, 10, 9), np.float32))
    Path("text.npy").write_text("1 2 3")
    return tmp_path


COMMANDS: dict[str, tuple[str, ...]] = {
    "compile absent.onnx": ("absent.onnx",),
    "compile not-ONNX.onnx": ("not-ONNX.onnx", "not an ONNX model"),
    "compile opset-too-new.onnx": ("opset-too-new.onnx", f"opset {NEWEST + 1}"),
    "compile NaN-weight.onnx": ("NaN-weight.onnx", "'w0'", "NaN"),
    "compile symbolic-height.onnx": ("'x'", "H", "--input-shape"),
    "compile operator-that-no-engine-knows.onnx": ("Warp", "relu1"),
    "compile --strict lrn.onnx": ("LRN", "lrn2"),
    "compile good.onnx --target pdp-11": ("pdp-11", "x86-64-avx2"),
    "compile good.onnx --precision int8": ("int8", "--calibration"),
    "compile good.onnx --precision int8 --calibration absent.npz": ("absent.npz", "no such"),
    "compile good.onnx --precision int8 --calibration nan.npz": ("'x'", "NaN"),
    "compile good.onnx --precision int8 --calibration nothing": ("nothing", "0 images"),
    "compile good.onnx --tune max": ("max", "fast"),
    "compile good.onnx --threads 0": ("--threads", "1"),
    "compile good.onnx --threads two": ("--threads", "integer"),
    "benchmark good.onnx --streams 0": ("--streams", "1"),
    "compile good.onnx --input-shape x=1,3": ("x", "4"),
    "compile good.onnx --input-shape x=1,three": ("x=1,three",),
    "compile good.onnx --input-shape y=1,3,4,4": ("'y'", "x"),
    "compile good.onnx --cc /no/such/cc": ("/no/such/cc",),
    "compile good.onnx -o missing/net.prunus": ("missing/net.prunus",),
    "compile good.onnx -o .": ("folder",),
    "compile good.onnx -o /dev/full": ("/dev/full", "No space left"),
    "compile": ("MODEL",),
    "compile good.onnx --no-such-option": ("--no-such-option",),
    "no-such-verb": ("no-such-verb",),
    "run absent.prunus x.npy": ("absent.prunus",),
    "run short.prunus x.npy": ("short.prunus", "truncated"),
    "run altered.prunus x.npy": ("altered.prunus", "altered"),
    "run newer.prunus x.npy": ("newer.prunus", "schema 99", f"reads {SCHEMA}"),
    "run good.prunus absent.npy": ("absent.npy",),
    "run good.prunus text.npy": ("text.npy",),
    "run good.prunus double.npy": ("'x'", "float64", "float32"),
    "run good.prunus small.npy": ("'x'", "[1, 3, 4, 4]", "[1, 3, 10, 9]"),
    "run good.prunus named.npz": ("image", "x"),
    "run good.prunus x.npy -o missing/y.npy": ("missing/y.npy",),
    "profile short.prunus": ("short.prunus", "truncated"),
    "prune good.onnx --scheme bcr:8x64 --sparsity 1.5 -o out.onnx": ("1.5",),
    "prune good.onnx --scheme diagonal --sparsity 0.5 -o out.onnx": ("diagonal",),
    "prune not-ONNX.onnx --scheme unstructured --sparsity 0.5 -o out.onnx": ("not-ONNX.onnx",),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_line(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    options = ["--tune", "off"] if command.startswith("compile") and "--tune" not in command else []
    code = run([*command.split(), *options])
    out, err = capsys.readouterr()
    last = err.rstrip("\n").splitlines()[-1:]
    assert code == BAD_INPUT, (out, err)
    assert err.count("error") == 1 and err.endswith("\n")
    assert len(err.splitlines()) == 1, err
    assert last[0].startswith("error: ") and "Traceback" not in err
    for fact in COMMANDS[command]:
        assert fact in last[0]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_command_line_as_a_process(folder: Path) -> None:
    """The exit code reaches the shell; what succeeds afterwards writes the file."""

    def prunus_(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-m", "prunus", *words], capture_output=True, text=True, check=False)

    done = prunus_("compile", "not-ONNX.onnx", "-o", "net.prunus")
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert re.fullmatch(r"error: not-ONNX\.onnx: not an ONNX model.*\n", done.stderr)
    assert not Path("net.prunus").exists()
    done = prunus_("compile", "good.onnx", "-o", "net.prunus", "--tune", "off", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (DONE, "", "")
    assert prunus.load("net.prunus").run(None, feeds_for(residual()))


def test_an_output_that_is_there_survives_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.prunus").write_bytes(b"precious")
    assert run(["compile", "NaN-weight.onnx", "-o", "net.prunus", "--tune", "off"]) == BAD_INPUT
    assert Path("net.prunus").read_bytes() == b"precious"


def test_the_good_ones_are_good() -> None:
    """What the cases above alter does compile."""
    for model in (residual(), classifier(), partitioned()):
        assert prunus.compile(model.SerializeToString(), tune="off", threads=1).run(None, feeds_for(model))
