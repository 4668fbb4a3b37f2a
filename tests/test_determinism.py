"""Output depends on inputs only: no time, no ids, no order of sets, no number of threads, no process beside us."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import prunus
from prunus.kernels.isa import isa_of
from prunus.kernels.library import kernel_library
from tests.runtime.networks import NETWORKS, feeds_for, residual

COMPILE = """
import hashlib, pathlib, sys
import prunus
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
    prunus.compile(path, tune="off", threads=int(sys.argv[2])).save(sys.argv[3])
    print(path.stem, hashlib.sha256(pathlib.Path(sys.argv[3]).read_bytes()).hexdigest())
"""


def artefact(model: onnx.ModelProto | Path, path: Path, **options: object) -> bytes:
    prunus.compile(model, tune="off", **{"threads": 1, **options}).save(path)  # type: ignore[arg-type]
    return path.read_bytes()


@pytest.mark.parametrize("name", NETWORKS)
def test_twice_the_same_bytes(name: str, tmp_path: Path) -> None:
    """From a proto, from bytes and from a file, and after the first session has run."""
    model = NETWORKS[name]("N")
    first = artefact(model, tmp_path / "first.prunus")
    session = prunus.compile(model, tune="off", threads=1)
    session.run(None, feeds_for(model, 3))
    session.profile(feeds_for(model), rounds=1)
    session.save(tmp_path / "second.prunus")
    assert (tmp_path / "second.prunus").read_bytes() == first
    onnx.save(model, tmp_path / "net.onnx")
    assert artefact(tmp_path / "net.onnx", tmp_path / "third.prunus") == first


def test_compiling_changes_nothing_in_the_model() -> None:
    for make in NETWORKS.values():
        model = make("N")
        before = model.SerializeToString(deterministic=True)
        prunus.compile(model, tune="off", threads=1).run(None, feeds_for(model))
        assert model.SerializeToString(deterministic=True) == before


def test_running_changes_no_input() -> None:
    model = residual()
    feeds = feeds_for(model)
    kept = feeds["x"].copy()
    feeds["x"].flags.writeable = False
    prunus.compile(model, tune="off", threads=1).run(None, feeds)
    np.testing.assert_array_equal(feeds["x"], kept)


@pytest.mark.parametrize("hash_seed", ["1", "2718"])
def test_same_bytes_in_another_process(hash_seed: str, tmp_path: Path) -> None:
    expected = []
    for name, make in sorted(NETWORKS.items()):
        onnx.save(make("N"), tmp_path / f"{name}.onnx")
        digest = hashlib.sha256(artefact(make("N"), tmp_path / "here.prunus")).hexdigest()
        expected.append(f"{name} {digest}")
    command = [sys.executable, "-c", COMPILE, str(tmp_path), "1", str(tmp_path / "there.prunus")]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == expected


def test_repeated_runs_agree_bitwise() -> None:
    model = residual("N")
    session = prunus.compile(model, tune="off", threads=2)
    feeds = feeds_for(model, 2)
    first = session.run(None, feeds)[0]
    for _ in range(20):
        np.testing.assert_array_equal(session.run(None, feeds)[0], first)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "partitioned"])
def test_an_image_does_not_depend_on_its_neighbours(name: str) -> None:
    """A batch gives each image the bits that it gets alone."""
    model = NETWORKS[name]("N")
    session = prunus.compile(model, tune="off", threads=2)
    feeds = feeds_for(model, 3)
    together = session.run(None, feeds)
    for i in range(3):
        alone = session.run(None, {key: value[i : i + 1] for key, value in feeds.items()})
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a[0], b[i])


def test_memory_of_earlier_runs_does_not_leak_into_later_ones() -> None:
    """NaN and infinity in one run leave nothing behind: padding is written anew, or never written."""
    for name, make in NETWORKS.items():
        model = make("N")
        session = prunus.compile(model, tune="off", threads=2)
        feeds = feeds_for(model, 2)
        wanted = session.run(None, feeds)
        session.run(None, {key: np.full_like(value, np.nan) for key, value in feeds.items()})
        session.run(None, {key: np.full_like(value, np.inf) for key, value in feeds.items()})
        for got, expected in zip(session.run(None, feeds), wanted, strict=True):
            np.testing.assert_array_equal(got, expected, err_msg=name)


BUILD = """
import sys
import prunus
print(len(prunus.compile(sys.argv[1], tune="off", threads=1, target="x86-64").code))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="builds for x86-64, which has the fewest kernels")
def test_processes_that_fill_the_kernel_cache_at_once(tmp_path: Path) -> None:
    """Both end well, with one library between them and nothing half-built beside it."""
    onnx.save(residual(), tmp_path / "net.onnx")
    cache = tmp_path / "cache"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", BUILD, str(tmp_path / "net.onnx")]
    racers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [racer.communicate(timeout=300) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    assert said[0][0] == said[1][0]
    libraries = [path for path in (cache / "prunus" / "kernels").iterdir() if path.suffix != ".lock"]
    assert [path.suffix for path in libraries] == [".so"]
    assert len(libraries[0].read_bytes()) == int(said[0][0])


@pytest.mark.slow
def test_a_kernel_library_is_the_same_wherever_it_is_built(tmp_path: Path) -> None:
    """No folder, time or process id gets into it, or artefacts of two machines would differ."""
    isa = isa_of("aarch64-neon")
    assert kernel_library(isa, folder=tmp_path / "one") == kernel_library(isa, folder=tmp_path / "another-name")
