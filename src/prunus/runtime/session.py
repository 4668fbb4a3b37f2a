"""A compiled network that runs: the same call as onnxruntime.InferenceSession."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import ArtefactError, FeedError, MissingExtraError, TargetError, UnsupportedError
from prunus.runtime import artefact
from prunus.runtime.cpu import physical_cores
from prunus.runtime.native import Bound, open_library
from prunus.runtime.plan import Plan, make_plan
from prunus.runtime.program import Op, Program, Shape, Steps, outside_tensors
from prunus.runtime.report import ExplainRow, ProfileRow, explain_rows, profile_rows
from prunus.runtime.roofline import machine
from prunus.runtime.steps import with_steps
from prunus.runtime.streams import MOST, Stream, Turns, check_streams

TYPES = {
    "float32": "tensor(float)", "float64": "tensor(double)", "float16": "tensor(float16)", "int64": "tensor(int64)",
    "int32": "tensor(int32)", "int8": "tensor(int8)", "uint8": "tensor(uint8)", "bool": "tensor(bool)",
}  # fmt: skip


@dataclass(frozen=True)
class Port:
    """An input or output, as onnxruntime describes it: a batch that may change is "batch" in `shape`."""

    name: str
    shape: list[int | str]
    type: str


@final
class Session:
    """A program with its native code and memory. `run` may be called from several threads: `streams` calls run at the
    same time, each on `threads` threads; more than these wait.

    Each stream keeps the memory for one batch size; another one re-plans, which takes milliseconds and no compiler.
    """

    def __init__(
        self,
        program: Program,
        code: bytes,
        constants: NDArray[np.float32],
        threads: int | None = None,
        replan: "Any" = None,
        streams: int = 1,
        find_steps: Callable[[], Steps | None] = lambda: None,
    ) -> None:
        self.program, self.code, self.constants = program, code, constants
        self.streams = check_streams(streams)
        self.threads = check_threads(threads, self.streams)
        self._library = open_library(code)
        self._all = [Stream(self._library, self.threads, self.streams == 1) for _ in range(self.streams)]
        self._turns = Turns(self._all)
        self._lock = threading.Lock()
        self._plan: Plan | None = None  # the one made last
        self._replan = replan  # shapes -> Session, where the model is at hand, or how it grows is known
        self._find_steps = find_steps  # how it grows, for who loads it without the model
        self._resized: dict[tuple[Shape, ...], Session] = {}
        self._carrier = self  # has the states of the run before, where they are kept
        partitions = [op for op in program.ops if op.kind == "onnxruntime"]
        self._outside = outside_tensors(program)
        self._partitions = {op.name: open_partition(program, op, self.threads) for op in partitions}

    def get_inputs(self) -> list[Port]:
        """Name, shape and type of each input."""
        return [self._port(name) for name in self.program.inputs]

    def get_outputs(self) -> list[Port]:
        """Name, shape and type of each output."""
        return [self._port(name) for name in self.program.outputs]

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs for one set of inputs, as new arrays, in the order of `output_names` (None: all).

        Raises FeedError: an input is missing or unknown, or its dtype or shape doesn't fit; an output is unknown.
        """
        if not output_names and self._carrier is self:
            stream = self._turns.get()
            try:
                stream.wake()
                results = stream.quick.run(feeds) if stream.quick else None
            finally:
                self._turns.put(stream)
            if results is not None:
                return results
        return self._run(output_names, feeds, None)

    def reset(self) -> None:
        """Begin a new stream: the states of recurrent layers are as at first. Nothing to do for other sessions."""
        with self._turns.take() as stream:
            stream.wake()
            self._carrier = self
            stream.restart(self.program)

    def profile(self, feeds: Mapping[str, NDArray[Any]], rounds: int = 20) -> list[ProfileRow]:
        """Time per node: rows of node, op, kernel, scheme, sparsity, ms (mean of `rounds`), gflops, of_peak, roofline,
        bound; see `ProfileRow`. `gflops` counts kept weights only. A streaming session goes on as if it had not been
        profiled.

        Raises FeedError: as `run`.
        """
        with self._states_kept():
            return self._profile(feeds, rounds)

    def _profile(self, feeds: Mapping[str, NDArray[Any]], rounds: int) -> list[ProfileRow]:
        arrays = check_feeds(self.program, feeds)
        batch = self._batch(arrays)
        if batch is None:
            return self._resize(arrays).profile(feeds, rounds)
        times: dict[int, float] = {}
        self._run(None, feeds, {})
        for _ in range(rounds):
            self._run(None, feeds, times)
        means = {op: t / rounds for op, t in times.items()}
        return profile_rows(self.program, means, batch, self.threads, machine(self._library))

    def explain(self) -> list[ExplainRow]:
        """Per layer the kernel chosen, the ones refused, and why; the least time it could take; what bounds it."""
        return explain_rows(self.program, self.threads, machine(self._library))

    def save(self, path: str | Path) -> None:
        """Write the artefact.

        Raises OutputError: it can't be written; nothing half-written stays.
        """
        program = self.program if self.program.steps else replace(self.program, steps=self._find_steps())
        artefact.save(Path(path), program, self.code)

    def memory(self) -> dict[str, int]:
        """Bytes held: weights and code of the artefact, and the arenas of all streams that ran, each for the batch size
        run last."""
        arenas = sum(stream.n_bytes for stream in self._all)
        return {"constants": self.constants.nbytes, "code": len(self.code), "arena": arenas}

    def _port(self, name: str) -> Port:
        tensor = self.program.tensors[name]
        shape: list[int | str] = ["?" if n < 0 else n for n in tensor.shape]
        if self.program.batch and shape:
            shape[0] = "batch" if shape[0] == 1 else f"{shape[0]}*batch"
        return Port(name, shape, TYPES.get(tensor.dtype, tensor.dtype))

    def _run(
        self,
        output_names: Sequence[str] | None,
        feeds: Mapping[str, NDArray[Any]],
        times: dict[int, float] | None,
    ) -> list[NDArray[Any]]:
        wanted = list(output_names) if output_names else list(self.program.outputs)
        for name in wanted:
            if name not in self.program.outputs:
                raise FeedError(f"output {name!r}: the network has {', '.join(self.program.outputs)}")
        arrays = check_feeds(self.program, feeds)
        batch = self._batch(arrays)
        if batch is None and self.program.streaming:
            return self._continue(arrays, output_names)
        if batch is None:
            return self._resize(arrays).run(output_names, feeds)
        with self._turns.take() as stream:
            if stream.bound is None or stream.bound.plan.batch != batch:
                stream.bound = stream.quick = None  # what another batch took goes before there is a new plan
                stream.bind(self.program, self._plan_for(batch), self.constants)
            stream.wake()
            if self._carrier is not self:
                self._take_states(stream, self._carrier)
            results = self._execute(stream, arrays, times)
        return [results[name] for name in wanted]

    def _continue(self, arrays: dict[str, NDArray[Any]], output_names: Sequence[str] | None) -> list[NDArray[Any]]:
        """Outputs for another number of steps than planned for, from the states that there are on."""
        other = self._resize(arrays)
        ours, theirs = (streamed_batch(session.program) for session in (self, other))
        if ours != theirs:
            raise FeedError(f"a streaming session of batch size {ours} was fed a batch of {theirs}")
        with self._turns.take():
            if self._carrier is not other:
                with other._turns.take() as stream:
                    if stream.bound is None:
                        stream.bind(other.program, other._plan_for(1), other.constants)
                    other._take_states(stream, self._carrier)
                self._carrier = other
            return other.run(output_names, arrays)

    def _take_states(self, stream: Stream, carrier: "Session") -> None:
        """Go on from the states of another session of the same layers."""
        source, target = carrier._all[0].bound, stream.bound
        if source is None or target is None:
            stream.restart(self.program)
        else:
            n = target.plan.states
            target.arena[:n] = source.arena[:n]
        self._carrier = self

    @contextmanager
    def _states_kept(self) -> Iterator[None]:
        """States that are kept from run to run are afterwards what they were."""
        if not self.program.streaming:
            yield
            return
        carrier = self._carrier
        stream = carrier._all[0]
        states = None if stream.bound is None else stream.bound.arena[: stream.bound.plan.states].copy()
        try:
            yield
        finally:
            self._carrier = carrier
            if stream.bound is not None and states is not None:
                stream.bound.arena[: len(states)] = states
            else:
                stream.restart(carrier.program)

    def _plan_for(self, batch: int) -> Plan:
        """The plan for a batch size, which streams share."""
        with self._lock:
            if self._plan is None or self._plan.batch != batch:
                self._plan = None
                self._plan = make_plan(self.program, batch)
            return self._plan

    def _execute(
        self, stream: Stream, arrays: dict[str, NDArray[Any]], times: dict[int, float] | None
    ) -> dict[str, NDArray[Any]]:
        bound, program = stream.bound, self.program
        assert bound is not None, "a stream runs what it was bound to"
        plan = bound.plan
        others = dict(arrays)  # tensors that don't lie in the arena
        outputs = {
            name: np.empty(plan.layouts[name].shape, np.float32)
            for name in program.outputs
            if name not in self._outside
        }
        nothing = np.empty(0, np.float32)
        ports = [arrays[name] for name in program.inputs] + [outputs.get(name, nothing) for name in program.outputs]
        first = 0
        for stage in plan.stages:
            if stage.partition is not None:
                self._run_partition(bound, stage.partition, others)
                continue
            spent = None if times is None else np.zeros(stage.slots, np.int64)
            bound.run(stream.pool, stage, ports, spent)
            if times is not None and spent is not None:
                for slot, nanoseconds in zip(plan.slots[first : first + stage.slots], spent, strict=True):
                    times[slot.op] = times.get(slot.op, 0.0) + slot.share * float(nanoseconds)
            first += stage.slots
        return {name: outputs[name] if name in outputs else others[name] for name in program.outputs}

    def _run_partition(self, bound: Bound, op: Op, others: dict[str, NDArray[Any]]) -> None:
        """Run a part of the network in onnxruntime."""
        engine, places = self._partitions[op.name], bound.plan.foreign[op.name]

        def view(name: str) -> NDArray[np.float32]:
            shape = bound.plan.layouts[name].shape
            return bound.arena[places[name] : places[name] + math.prod(shape)].reshape(shape)

        feeds = {name: view(name) if name in places else others[name] for name in op.inputs}
        try:
            results = engine.run(list(op.outputs), feeds)
        except onnxruntime_errors() as error:
            raise UnsupportedError(f"{op.name}: onnxruntime can't run it: {str(error).splitlines()[0]}") from error
        for name, result in zip(op.outputs, results, strict=True):
            if name in places:
                np.copyto(view(name), result)
            else:
                others[name] = result

    def _batch(self, arrays: dict[str, NDArray[Any]]) -> int | None:
        """The batch size fed, or None where only another plan of the model would fit.

        Raises FeedError: the shapes fit no plan that can be made.
        """
        program, batches = self.program, set()
        for name in program.inputs:
            found, expected = arrays[name].shape, program.tensors[name].shape
            scaled = program.batch and len(found) > 0 and found[0] > 0 and found[0] % expected[0] == 0
            if len(found) == len(expected) and found[1:] == expected[1:] and (scaled or found == expected):
                batches.add(found[0] // expected[0] if program.batch else 1)
            elif self._replan is not None and len(found) == len(expected):
                return None
            else:
                raise FeedError(f"input {name!r}: shape {list(found)}, expected {self._port(name).shape}")
        if len(batches) > 1:
            raise FeedError(f"inputs of different batch sizes: {sorted(batches)}")
        return batches.pop() if batches else 1

    def _resize(self, arrays: dict[str, NDArray[Any]]) -> "Session":
        """The session for other input shapes, made from the model."""
        key = tuple(arrays[name].shape for name in self.program.inputs)
        with self._lock:
            if key not in self._resized:
                shapes = {name: arrays[name].shape for name in self.program.inputs}
                self._resized = {key: self._replan(shapes)}  # one is kept: each has memory of its own
            return self._resized[key]


def streamed_batch(program: Program) -> int:
    """How many sequences a streaming program goes on with."""
    return next(program.tensors[op.inputs[0]].shape[1] for op in program.ops if op.attrs.get("streaming"))


def check_threads(threads: int | None, streams: int = 1) -> int:
    """Number of threads to use per stream: for None all physical cores, dealt out to the streams.

    Raises TargetError: not a positive number.
    """
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise TargetError(f"threads={threads!r}: expected a positive number, or None for all physical cores")
    return max(1, physical_cores() // streams) if threads is None else min(threads, MOST)


def check_feeds(program: Program, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The inputs as C-ordered arrays.

    Raises FeedError: a name is missing or unknown, or a dtype is wrong.
    """
    known = ", ".join(program.inputs)
    for name in feeds:
        if name not in program.inputs:
            raise FeedError(f"input {name!r}: the network has {known}")
    arrays = {}
    for name in program.inputs:
        if name not in feeds:
            raise FeedError(f"input {name!r} is missing: the network has {known}")
        array, dtype = np.asarray(feeds[name]), program.tensors[name].dtype
        if array.dtype != dtype:
            raise FeedError(f"input {name!r}: dtype {array.dtype}, expected {dtype}")
        arrays[name] = np.asarray(array, order="C")
    return arrays


def open_partition(program: Program, op: Op, threads: int) -> Any:
    """An onnxruntime session for a partition.

    Raises MissingExtraError: onnxruntime isn't installed. UnsupportedError: it has no kernel for a node.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f'{op.name}: this network has parts that run in onnxruntime (pip install "prunus[compile]")'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    model = program.constants[op.attrs["model"]].tobytes()
    try:
        return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    except onnxruntime_errors() as error:
        raise UnsupportedError(f"{op.name}: onnxruntime can't run it: {str(error).splitlines()[0]}") from error


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a network that it can't load or run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.NotImplemented, state.InvalidGraph, state.InvalidArgument, state.RuntimeException)


def load(path: str | Path, threads: int | None = None, streams: int = 1) -> Session:
    """Load an artefact. It holds machine code: loading one is running it.

    streams: how many calls of `run` may run at the same time, each on `threads` threads.
    Raises ArtefactError: truncated, altered, of another version of Prunus, or for an ISA that this CPU lacks.
    """
    program, code, constants = artefact.read(Path(path))

    def replan(fed: Mapping[str, Shape]) -> Session:
        return Session(with_steps(program, fed), code, constants, threads, replan, streams)

    try:
        return Session(program, code, constants, threads, replan if program.steps else None, streams)
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error
