"""The schedule: how each layer is computed, as a text that can be read, changed by hand, and given back.

GRIM's layer-wise intermediate representation in YAML: per layer the encoding, heights of row groups, tile, order and
chunks, with the scheme of its zeros and the reason as a comment. Source: Niu et al., "GRIM", TPAMI 44 (2022),
arXiv:2108.11033, section on the DSL; the fields are those of `Choice`.
"""

import difflib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from prunus.compiler.chains import chain_refusal
from prunus.compiler.choice import Choice, LayerShape
from prunus.errors import ScheduleError
from prunus.kernels.isa import LANES_TILES, Isa
from prunus.runtime.program import Chain, Program
from prunus.sparsity.spans import MOST_COLUMNS

VERSION = 1
CHOICE = TypeAdapter(Choice)
DEFAULTS = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in fields(Choice)}


class Depth(BaseModel):
    """Layers and pools computed depth first: the names of the first and the last, and how many rows of the last one's
    output at a time."""

    model_config = ConfigDict(extra="forbid")
    first: str
    last: str
    rows: int


class File(BaseModel):
    """What a schedule holds."""

    model_config = ConfigDict(extra="forbid")
    version: int
    target: str
    threads: int
    layers: dict[str, dict[str, Any]]
    depth_first: list[Depth] = []


@dataclass(frozen=True)
class Schedule:
    """How layers are computed, by name, and which operators depth first."""

    layers: Mapping[str, Choice]
    depth_first: tuple[Depth, ...]


def schedule_text(program: Program, threads: int) -> str:
    """The schedule of a program's layers."""
    layers = CommentedMap()
    for op in program.ops:
        for attrs in (op.attrs, op.attrs.get("over_time", {})):
            if "choice" not in attrs:
                continue
            name = op.name if attrs is op.attrs else attrs["encoding"]
            layers[name] = CommentedMap({k: v for k, v in attrs["choice"].items() if v != DEFAULTS.get(k)})
            comment = f"{attrs['scheme']}, sparsity {attrs['sparsity']:.4f}; {attrs['reason']}"
            layers.yaml_set_comment_before_after_key(name, before=comment, indent=2)
    document = CommentedMap({"version": VERSION, "target": program.target, "threads": threads, "layers": layers})
    if program.chains:
        names = [op.name for op in program.ops]
        document["depth_first"] = [
            CommentedMap({"first": names[chain.first], "last": names[chain.last], "rows": chain.rows})
            for chain in program.chains
        ]
    yaml, stream = YAML(), io.StringIO()
    yaml.width, yaml.default_flow_style = 4096, None
    yaml.dump(document, stream)
    return stream.getvalue()


def read_schedule(path: str | Path, isa: Isa, threads: int) -> Schedule:
    """What a schedule says.

    Raises ScheduleError: unreadable, a key that isn't one, a value that doesn't fit, or made for another target or
    number of threads: file, layer, key.
    """
    try:
        data = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
        file = File.model_validate(data)
    except OSError as error:
        raise ScheduleError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, YAMLError) as error:
        raise ScheduleError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        _refuse(str(path), error, File.model_fields)
    for found, expected, key in (
        (file.version, VERSION, "version"), (file.target, isa.target, "target"), (file.threads, threads, "threads"),
    ):  # fmt: skip
        if found != expected:
            raise ScheduleError(f"{path}: {key} {found}, expected {expected}")
    layers = {name: _choice(f"{path}: layer {name!r}", said) for name, said in file.layers.items()}
    return Schedule(layers, tuple(file.depth_first))


def _choice(where: str, said: dict[str, Any]) -> Choice:
    for key in said:  # a dataclass takes what it doesn't know
        if key not in DEFAULTS:
            raise ScheduleError(f"{where}: unknown key {key!r}{_nearest(key, DEFAULTS)}")
    try:
        choice: Choice = CHOICE.validate_python(said)
    except ValidationError as error:
        _refuse(where, error, DEFAULTS)
    return choice


def _refuse(where: str, error: ValidationError, known: Iterable[str]) -> NoReturn:
    detail = error.errors()[0]
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        raise ScheduleError(f"{where}: unknown key {key!r}{_nearest(key, known)}") from error
    found = "" if detail["type"] == "missing" else f", found {str(detail['input'])[:60]!r}"
    raise ScheduleError(f"{where}: {key + ': ' if key else ''}{detail['msg']}{found}") from error


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def check_layers(path: str | Path, pinned: Mapping[str, Choice], layers: Mapping[str, LayerShape], isa: Isa) -> None:
    """Raises ScheduleError: a layer that the network doesn't have, or a choice that it or `isa` can't take."""
    for name, choice in pinned.items():
        if name not in layers:
            raise ScheduleError(f"{path}: layer {name!r}: the network has none of that name{_nearest(name, layers)}")
        if problem := refusal(choice, layers[name], isa):
            raise ScheduleError(f"{path}: layer {name!r}: {problem}")


def chains_of(path: str | Path, said: Iterable[Depth], program: Program, threads: int) -> tuple[Chain, ...]:
    """The chains that a schedule names.

    Raises ScheduleError: an operator that the network doesn't have, or operators that can't be a chain.
    """
    places = {op.name: i for i, op in enumerate(program.ops)}
    chains: list[Chain] = []
    for depth in said:
        where = f"{path}: depth_first {depth.first!r} to {depth.last!r}"
        for name in (depth.first, depth.last):
            if name not in places:
                raise ScheduleError(f"{where}: the network has no {name!r}{_nearest(name, places)}")
        chain = Chain(places[depth.first], places[depth.last], depth.rows, threads)
        if problem := chain_refusal(chain, program, chains[-1].last if chains else -1):
            raise ScheduleError(f"{where}: {problem}")
        chains.append(chain)
    return tuple(chains)


def refusal(choice: Choice, shape: LayerShape, isa: Isa) -> str | None:
    """Why a layer can't be computed so; None when it can."""
    for key in ("tile", "section", "tiles_per_task", "union", "apart"):
        if getattr(choice, key) < 1:
            return f"{key} {getattr(choice, key)}, expected at least 1"
    if choice.chunk < 0:
        return f"chunk {choice.chunk}, expected 0 (all columns) or more"
    if choice.encoding == "blocks" and min(choice.block) < 1:
        return f"block {list(choice.block)}, expected rows and columns of a block"
    if choice.encoding == "winograd" and not shape.tile_vectors:
        return (
            "winograd computes ungrouped, undilated convolutions, 3x3 at stride 1, or 7x7 at stride 2 of few channels"
        )
    if choice.encoding == "winograd" and choice.section % max(choice.heights):
        return f"section {choice.section}, expected a multiple of the height {max(choice.heights)}"
    if (choice.encoding == "channels") != shape.lone:
        return f"encoding {choice.encoding}, expected " + ("channels" if shape.lone else "another: channels are packed")
    if choice.encoding == "depthwise" and not shape.window:
        return "depthwise computes 3x3 and 5x5 convolutions of stride 1 or 2 with as many groups as channels, undilated"
    if shape.lone or choice.encoding == "depthwise":
        return None
    if shape.pack > 1 and shape.vectors:
        return _packed_refusal(choice, shape, isa)
    if choice.encoding == "spans":
        return _spans_refusal(shape)
    if choice.encoding == "lanes":
        return _lanes_refusal(choice, shape, isa)
    if not shape.vectors and (choice.encoding != "rows" or choice.chunk):
        return "a layer of single vectors takes whole rows: encoding rows, no chunk"
    pack = shape.pack if shape.value_bytes == 4 else 0
    heights = dict.fromkeys(isa.gemv_heights(pack), 1) if not shape.vectors else dict(isa.tiles)
    if 1 not in choice.heights:
        return f"heights {list(choice.heights)}, expected 1 among them, for what is left over"
    for height in choice.heights:
        if heights.get(height, 0) < choice.tile:
            sizes = ", ".join(f"{h} (tile up to {tile})" for h, tile in heights.items())
            return f"height {height} with tile {choice.tile}: {isa.target} has {sizes} for this layer"
    apart = {1: choice.tile, **dict(isa.apart)} if shape.vectors and choice.encoding == "rows" else {1: choice.tile}
    if apart.get(choice.apart, 0) < choice.tile:
        sizes = ", ".join(f"{n} (tile up to {tile})" for n, tile in apart.items())
        return f"apart {choice.apart} with tile {choice.tile}: {isa.target} has {sizes} for this layer"
    return None


def _lanes_refusal(choice: Choice, shape: LayerShape, isa: Isa) -> str | None:
    """Why a layer can't be computed with rows as lanes; None when it can."""
    if not shape.line:
        return "lanes computes ungrouped convolutions of float32 over small maps"
    if (choice.tiles_per_task, choice.tile) not in LANES_TILES or (
        choice.tiles_per_task > 1 and shape.line % choice.tile
    ):
        sizes = ", ".join(f"{high} of {wide}" for high, wide in LANES_TILES)
        return f"{choice.tiles_per_task} lines (tiles_per_task) of {choice.tile} pixels (tile), expected {sizes}"
    heights = isa.lanes_heights(choice.tiles_per_task * choice.tile)
    if 1 not in choice.heights or not set(choice.heights) <= set(heights):
        return f"heights {list(choice.heights)}, expected some of {', '.join(map(str, heights))}, with 1"
    if choice.chunk or choice.apart > 1:
        return "lanes takes whole rows: no chunk, apart 1"
    return None


def _spans_refusal(shape: LayerShape) -> str | None:
    """Why a layer can't be computed without row groups; None when it can."""
    if not shape.flat:
        return "spans computes fully connected layers of float32"
    if shape.k > MOST_COLUMNS:
        return f"spans takes up to {MOST_COLUMNS} inputs, not {shape.k}"
    return None


def _packed_refusal(choice: Choice, shape: LayerShape, isa: Isa) -> str | None:
    """Why a layer of pixels over packed channels can't be computed so; None when it can."""
    if choice.encoding != "rows" or choice.chunk or choice.apart > 1:
        return "a layer over packed channels takes whole rows: encoding rows, no chunk"
    tiles = dict(isa.tiles_of(shape.pack))
    for height in choice.heights:
        if height % shape.pack or tiles.get(height, 0) < choice.tile:
            sizes = ", ".join(f"{h} (tile up to {tile})" for h, tile in tiles.items() if h % shape.pack == 0)
            return f"height {height} with tile {choice.tile}: {isa.target} has {sizes} for this layer"
    if shape.pack not in choice.heights:
        return f"heights {list(choice.heights)}, expected {shape.pack} among them, for what is left over"
    if choice.union % shape.pack:
        return f"union {choice.union}, expected a multiple of {shape.pack}"
    return None
