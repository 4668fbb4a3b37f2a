"""A session answers as onnxruntime does: for any batch, from any thread, after a fork, saved and loaded."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

import prunus
from prunus.errors import FeedError, PrunusError
from prunus.runtime.program import Op
from prunus.runtime.session import Session
from tests.runtime.networks import NETWORKS, Net, assert_agrees, feeds_for, onnxruntime_run, residual

BATCHED = [name for name in NETWORKS if name != "partitioned"]
IMAGE = {"x": (1, 3, 12, 12)}


def quick(model: onnx.ModelProto, threads: int = 1, **options: object) -> Session:
    """Compiled without measuring."""
    return prunus.compile(model, tune="off", threads=threads, **options)  # type: ignore[arg-type]


def resizable() -> onnx.ModelProto:
    """Any batch, height and width."""
    net = Net({"x": ("N", 3, "H", "W")})
    return net.model(net.add("GlobalAveragePool", net.add("Relu", net.conv("x", 8, 3))))


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_onnxruntime(name: str) -> None:
    model = NETWORKS[name]()
    feeds = feeds_for(model)
    assert_agrees(quick(model).run(None, feeds), onnxruntime_run(model, feeds))


@pytest.mark.parametrize("name", NETWORKS)
def test_batches_in_turn(name: str) -> None:
    """Each batch size is planned anew, from the model or without it, and the first one again."""
    model = NETWORKS[name]("N")
    session = quick(model)
    for batch in (1, 4, 1, 3):
        feeds = feeds_for(model, batch, seed=batch)
        assert_agrees(session.run(None, feeds), onnxruntime_run(model, feeds))


def test_loaded_artefact_takes_other_batches_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {name: NETWORKS[name]("N") for name in BATCHED}
    for name, model in models.items():
        quick(model).save(tmp_path / name)
    monkeypatch.setenv("PRUNUS_CC", "/nonexistent")
    monkeypatch.setenv("PATH", "")
    for name, model in models.items():
        session = prunus.load(tmp_path / name, threads=1)
        for batch in (1, 4, 1, 3):
            feeds = feeds_for(model, batch, seed=batch)
            assert_agrees(session.run(None, feeds), onnxruntime_run(model, feeds))


def test_image_size_changes_while_the_model_is_at_hand(tmp_path: Path) -> None:
    model = resizable()
    session = quick(model, input_shapes=IMAGE)
    for shape in ((1, 3, 12, 12), (1, 3, 7, 20), (2, 3, 7, 20), (1, 3, 12, 12)):
        feeds = {"x": np.random.default_rng(0).standard_normal(shape, np.float32)}
        assert_agrees(session.run(None, feeds), onnxruntime_run(model, feeds))
    session.save(tmp_path / "net.prunus")
    loaded = prunus.load(tmp_path / "net.prunus", threads=1)
    feeds = {"x": np.ones((3, 3, 12, 12), np.float32)}
    assert_agrees(loaded.run(None, feeds), onnxruntime_run(model, feeds))
    with pytest.raises(FeedError, match=r"'x'.*\[1, 3, 7, 20\].*12, 12"):
        loaded.run(None, {"x": np.ones((1, 3, 7, 20), np.float32)})


def test_fixed_dimensions_stay_fixed() -> None:
    """What the model itself fixes can't be fed otherwise, though the model is at hand."""
    session = quick(residual("N"))
    for shape in ((1, 4, 10, 9), (1, 3, 11, 9), (1, 3, 10), (0, 3, 10, 9)):
        with pytest.raises(FeedError, match="'x'") as caught:
            session.run(None, {"x": np.ones(shape, np.float32)})
        assert str(list(shape)) in str(caught.value)
        assert "10, 9" in str(caught.value)


def test_run_names_outputs_in_the_order_asked() -> None:
    model = NETWORKS["two_ports"]()
    session, feeds = quick(model), feeds_for(model)
    first, second = (port.name for port in session.get_outputs())
    both = session.run(None, feeds)
    swapped = session.run([second, first], feeds)
    np.testing.assert_array_equal(swapped[0], both[1])
    np.testing.assert_array_equal(swapped[1], both[0])


def test_results_are_the_callers() -> None:
    """A later run doesn't write into what an earlier one returned."""
    model = residual()
    session = quick(model)
    first = session.run(None, feeds_for(model, seed=1))[0]
    kept = first.copy()
    session.run(None, feeds_for(model, seed=2))
    np.testing.assert_array_equal(first, kept)


def test_feeds_in_any_order_of_memory() -> None:
    model = residual()
    session, feeds = quick(model), feeds_for(model)
    wanted = session.run(None, feeds)[0]
    fortran = {"x": np.asfortranarray(feeds["x"])}
    wide = np.repeat(feeds["x"], 2, axis=3)[..., ::2]
    np.testing.assert_array_equal(session.run(None, fortran)[0], wanted)
    np.testing.assert_array_equal(session.run(None, {"x": wide})[0], wanted)


def test_ports_are_described_as_onnxruntime_does() -> None:
    session = quick(residual("N"))
    (x,), (y,) = session.get_inputs(), session.get_outputs()
    assert (x.name, x.shape, x.type) == ("x", ["batch", 3, 10, 9], "tensor(float)")
    assert (y.shape, y.type) == (["batch", 16, 10, 9], "tensor(float)")
    assert quick(residual()).get_inputs()[0].shape == [1, 3, 10, 9]


@pytest.mark.parametrize("threads", [1, 2])
def test_runs_from_eight_threads_at_once(threads: int) -> None:
    model = residual("N")
    session = quick(model, threads)
    feeds = [feeds_for(model, 1 + i % 3, seed=i) for i in range(8)]
    wanted = [session.run(None, feed) for feed in feeds]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if not np.array_equal(session.run(None, feeds[i])[0], wanted[i][0]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not any(worker.is_alive() for worker in workers)
    assert not wrong


@pytest.mark.parametrize("name", NETWORKS)
def test_number_of_threads_changes_no_bit(name: str) -> None:
    model = NETWORKS[name]("N")
    one, two = quick(model, 1), quick(model, 2)
    for batch in (1, 3):
        feeds = feeds_for(model, batch)
        for a, b in zip(one.run(None, feeds), two.run(None, feeds), strict=True):
            np.testing.assert_array_equal(a, b)


def test_more_threads_than_cores(tmp_path: Path) -> None:
    model = residual()
    feeds = feeds_for(model)
    np.testing.assert_array_equal(quick(model, 9).run(None, feeds)[0], quick(model, 1).run(None, feeds)[0])


FORK = """
import os, sys
import numpy as np
import prunus
session = prunus.load(sys.argv[1], threads=2, streams=int(sys.argv[3]))
x = np.load(sys.argv[2])
wanted = session.run(None, {"x": x})[0]
for _ in range(3):
    child = os.fork()
    if not child:
        same = np.array_equal(session.run(None, {"x": x})[0], wanted)
        os._exit(7 if same else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert np.array_equal(session.run(None, {"x": x})[0], wanted)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("streams", [1, 2])
def test_runs_in_a_forked_child(streams: int, tmp_path: Path) -> None:
    model = residual()
    quick(model, 2).save(tmp_path / "net.prunus")
    np.save(tmp_path / "x.npy", feeds_for(model)["x"])
    command = [sys.executable, "-c", FORK, str(tmp_path / "net.prunus"), str(tmp_path / "x.npy"), str(streams)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_profile_names_every_layer() -> None:
    model = NETWORKS["classifier"]("N")
    session = quick(model)
    for batch in (1, 5):
        rows = session.profile(feeds_for(model, batch), rounds=3)
        layers = [row for row in rows if row.op in ("conv", "gemm")]
        assert [row.node for row in layers] == ["conv0", "gemm4", "gemm6"]
        assert all(row.ms > 0 for row in layers)
        assert all(row.ms >= 0 for row in rows)
        for row in layers:
            assert row.sparsity is not None
            assert row.gflops is not None and row.gflops > 0
            assert row.roofline is not None and 0 < row.roofline < 1.5
            assert row.kernel and row.scheme
        assert {row.op for row in rows} >= {"global_avg_pool", "softmax"}


def test_sparsity_is_that_of_the_weights() -> None:
    """Exactly the share of zeros, with no rounding, in both reports."""
    model = NETWORKS["classifier"]()
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    zeros = {n.name: float((arrays[n.input[1]] == 0).mean()) for n in model.graph.node if n.op_type in ("Conv", "Gemm")}
    session = quick(model)
    explained = {row.node: row for row in session.explain()}
    profiled = {row.node: row for row in session.profile(feeds_for(model), rounds=1)}
    for name, wanted in zeros.items():
        assert explained[name].sparsity == pytest.approx(wanted, abs=1e-9)
        assert profiled[name].sparsity == pytest.approx(wanted, abs=1e-9)
        assert explained[name].kernel == profiled[name].kernel


def test_profile_of_a_partition_and_of_a_resized_image() -> None:
    """Another engine's part has its row and time; so has a network that was planned anew."""
    model = NETWORKS["partitioned"]()
    rows = {row.op: row for row in quick(model).profile(feeds_for(model), rounds=2)}
    assert rows["onnxruntime"].ms > 0
    session = quick(resizable(), input_shapes=IMAGE)
    rows = {row.op: row for row in session.profile({"x": np.ones((1, 3, 30, 20), np.float32)}, rounds=2)}
    assert rows["conv"].ms > 0


def test_explain_says_why_a_node_is_not_compiled() -> None:
    rows = {row.op: row for row in quick(NETWORKS["partitioned"]()).explain()}
    assert "LRN" in rows["onnxruntime"].node
    assert "onnxruntime" in rows["onnxruntime"].reason
    assert all(row.reason for row in rows.values())


def test_memory_counts_weights_code_and_arena() -> None:
    model = residual("N")
    session = quick(model)
    assert session.memory()["arena"] == 0
    session.run(None, feeds_for(model, 1))
    small = session.memory()
    session.run(None, feeds_for(model, 8))
    assert session.memory()["arena"] > small["arena"] > 0
    assert small["code"] == len(session.code) > 0
    assert small["constants"] > 0


def partition_around_a_residual() -> onnx.ModelProto:
    """What another engine makes is added to a convolution; it reads a channel range of a concatenation."""
    net = Net({"x": (1, 4, 7, 9)})
    left, right = net.add("Relu", net.conv("x", 6, 4, 1)), net.conv("x", 6, 4)
    other = net.add("LRN", left, size=3)
    total = net.add("Relu", net.add("Add", net.conv(other, 6, 6), other))
    both = net.add("Concat", left, right, total, axis=1)
    return net.model(net.conv(net.add("LRN", both, size=3), 5, 18), total)


def partition_of_other_types() -> onnx.ModelProto:
    """The five largest: int64 indices leave the network, and shapes of rank 2 go in and out."""
    net = Net({"x": (1, 3, 6, 6)})
    vector = net.add("Flatten", net.conv("x", 4, 3), axis=1)
    k = net.constant(np.array([5], np.int64))
    net.nodes.append(onnx.helper.make_node("TopK", [vector, k], ["values", "indices"], name="top"))
    values = net.add("Relu", "values")
    model = net.model(values, "indices")
    model.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    return model


@pytest.mark.parametrize("make", [partition_around_a_residual, partition_of_other_types])
def test_partitions(make: object, tmp_path: Path) -> None:
    model = make()  # type: ignore[operator]
    session, feeds = quick(model), feeds_for(model)
    assert any(op.kind == "onnxruntime" for op in session.program.ops)
    answer = session.run(None, feeds)
    assert_agrees(answer, onnxruntime_run(model, feeds))
    session.save(tmp_path / "net.prunus")
    for got, wanted in zip(prunus.load(tmp_path / "net.prunus", threads=1).run(None, feeds), answer, strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == wanted.dtype


def test_partition_without_onnxruntime_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(NETWORKS["partitioned"]()).save(tmp_path / "net.prunus")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PrunusError, match=r"LRN.*onnxruntime.*prunus\[compile\]"):
        prunus.load(tmp_path / "net.prunus")


def test_many_sessions_share_the_code() -> None:
    """Sessions of the same kernels come and go without interfering."""
    models = [NETWORKS[name]() for name in BATCHED]
    sessions = [quick(model) for model in models]
    del sessions[::2]
    for model, session in zip(models[1::2], sessions, strict=True):
        feeds = feeds_for(model)
        assert_agrees(session.run(None, feeds), onnxruntime_run(model, feeds))
    assert all(isinstance(op, Op) for op in sessions[0].program.ops)
