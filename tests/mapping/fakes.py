"""A network whose layers take times by a formula: nothing is measured, and the same comes out each time."""

from collections.abc import Callable, Mapping
from functools import partial

import onnx

from prunus.mapping.in_place import InPlace
from prunus.mapping.network import Site, read_network
from prunus.mapping.options import Sources
from prunus.mapping.table import Measure, Table
from prunus.sparsity.scheme import Scheme
from tests.runtime.networks import Net

OVERHEAD = 0.1  # of the dense time: what no sparsity saves
SLOWNESS: Mapping[str, float] = {  # of a scheme's kept weights, against dense ones
    "unstructured": 4.0, "pattern:4": 1.6, "punched:4x1": 1.3, "punched:8x1": 1.1, "bcr:4x16": 1.5,
}  # fmt: skip


def network() -> onnx.ModelProto:
    """A first 3x3, a depthwise, a 1x1, a 3x3, a 5x5 and a classifier."""
    net = Net({"x": (1, 3, 8, 8)})
    net.weight = partial(net.weight, zeros=0)  # type: ignore[method-assign]
    x = net.conv("x", 16, 3)
    x = net.conv(x, 16, 16, group=16)
    x = net.conv(x, 32, 16, 1)
    x = net.conv(x, 32, 32)
    x = net.conv(x, 16, 32, 5)
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    return net.model(net.add("Gemm", x, net.weight(10, 16), transB=1))


def formula(site: Site, scheme: Scheme | None, sparsity: float) -> float:
    """Milliseconds: proportional to multiply-adds and density, by SLOWNESS, and an overhead."""
    dense = site.macs * 1e-6
    if scheme is None:
        return dense
    return dense * (OVERHEAD + SLOWNESS.get(str(scheme), 1.0) * (1 - sparsity))


def sources(model: onnx.ModelProto | None = None, measure: Measure = formula) -> Sources:
    """Costs of a network by a formula; 0.05 ms outside of its layers."""
    read = read_network(model or network(), threads=1)
    table = Table(measure)
    placed = InPlace({site.name: table.dense(site).ms for site in read.sites}, 0.05)
    return Sources(read, table, placed, {}, "a machine")


def site_of(about: Sources, fits: Callable[[Site], bool]) -> Site:
    """The first layer of a kind."""
    return next(site for site in about.network.sites if fits(site))
