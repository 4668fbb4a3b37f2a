"""For every pass on the graph: models on which it fires, and models on which it nearly would and must not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from tests.graph.models import Build, batch_norm, ints, scalar
from tests.runtime.networks import Net

Shape = Sequence[int]
IMAGE = (2, 4, 6, 7)


@dataclass(frozen=True)
class Case:
    """A model, the pass it is for, and how many nodes that takes away; 0 for a near miss."""

    step: str
    build: Callable[[Net, str], str | tuple[str, ...]]
    fewer: int
    shape: Shape = IMAGE
    opset: int = 17

    def model(self) -> onnx.ModelProto:
        net = Net({"x": self.shape})
        made = self.build(net, "x")
        return net.model(*([made] if isinstance(made, str) else made), opset=self.opset)


def matrix(net: Net, x: str, k: int, o: int, bias: bool = False) -> str:
    """A matrix product; on two axes with a bias."""
    if bias:
        return net.add("Gemm", x, net.weight(k, o), net.weight(o, zeros=0))
    return net.add("MatMul", x, net.weight(k, o))


def transposed(net: Net, x: str, i: int, per_group: int, group: int, bias: bool) -> str:
    """ConvTranspose."""
    biases = [net.weight(per_group * group, zeros=0)] if bias else []
    return net.add("ConvTranspose", x, net.weight(i, per_group, 3, 2), *biases, group=group, strides=[2, 1])


def gate(net: Net, x: str, op: str = "Sigmoid", first: bool = False, **attrs: float) -> str:
    """x times a gate made of it."""
    side = net.add(op, x, **attrs)
    return net.add("Mul", side, x) if first else net.add("Mul", x, side)


def prelu(net: Net, x: str, *shape: int) -> str:
    return net.add("PRelu", x, net.weight(*shape, zeros=0))


def pads(net: Net, x: str, *both: int, value: float | None = None) -> str:
    return net.add("Pad", x, ints(net, *both), *([] if value is None else [scalar(net, value)]))


def both_and(net: Net, made: str, then: Build) -> tuple[str, ...]:
    """What was made is an output beside what is made of it."""
    return then(net, made), made


def shuffled_residual(net: Net, x: str) -> str:
    """Both sides are convolutions and the later one is written first."""
    left = net.conv(x, 4, 4)
    right = net.conv(net.conv(x, 4, 4, 1), 4, 4)
    return net.add("Relu", net.add("Add", right, left))


def chained_residuals(net: Net, x: str) -> str:
    for _ in range(3):
        x = net.add("Add", net.conv(net.add("Relu", net.conv(x, 4, 4)), 4, 4), x)
    return x


def residual_of_itself(net: Net, x: str) -> str:
    made = net.conv(x, 4, 4)
    return net.add("Add", made, net.add("Relu", made))


def twice(net: Net, x: str, then: Build, other: str = "Neg") -> str:
    """Something else reads it too."""
    return net.add("Concat", then(net, x), net.add(other, x), axis=1)


def relu(net: Net, x: str) -> str:
    return net.add("Relu", x)


def scale(net: Net, x: str) -> str:
    return net.add("Mul", x, net.weight(4, 1, 1, zeros=0))


def normal(net: Net, x: str) -> str:
    return batch_norm(net, x, 4)


def directions(net: Net, x: str, axis: int = 1, perm: Sequence[int] = (0, 2, 1, 3), size: int = 14) -> str:
    """Two values [t, n, h] side by side, as exporters write it behind a GRU of two directions."""
    pieces = [net.add("Unsqueeze", net.add(op, x), ints(net, 1)) for op in ("Neg", "Relu")]
    turned = net.add("Transpose", net.add("Concat", *pieces, axis=axis), perm=list(perm))
    return net.add("Reshape", turned, ints(net, 4, -1, size))


def shaped(net: Net, x: str, *shapes: Sequence[int]) -> str:
    """One reshape after the other."""
    for shape in shapes:
        x = net.add("Reshape", x, ints(net, *shape))
    return x


SIXTH = 1 / 6
STEPS = (4, 2, 7)
CASES: dict[str, Case] = {
    # the normaliser takes Identity away, so sums of one stand in
    "identity": Case("skip_identities", lambda n, x: relu(n, n.add("Sum", n.add("Sum", x))), 2),
    "identity as output": Case("skip_identities", lambda n, x: (n.add("Sum", n.add("Neg", x)), relu(n, x)), 0),
    "identity of an output": Case("skip_identities", lambda n, x: both_and(n, n.add("Sum", n.add("Neg", x)), relu), 0),
    "identity read twice": Case("skip_identities", lambda n, x: twice(n, n.add("Sum", x), relu), 1),
    "directions": Case("join_directions", directions, 4, STEPS),
    "directions in another order": Case("join_directions", lambda n, x: directions(n, x, perm=(0, 1, 2, 3)), 0, STEPS),
    "directions beside each other": Case("join_directions", lambda n, x: directions(n, x, axis=2), 0, STEPS),
    "directions folded otherwise": Case("join_directions", lambda n, x: directions(n, x, size=28), 0, STEPS),
    "directions as an output": Case(
        "join_directions", lambda n, x: (directions(n, x), n.nodes[-2].output[0]), 0, STEPS
    ),
    "reshapes": Case("merge_reshapes", lambda n, x: relu(n, shaped(n, x, (8, -1), (2, 42, 4), (4, -1))), 2),
    "reshapes that come to nothing": Case("merge_reshapes", lambda n, x: relu(n, shaped(n, x, (8, -1), IMAGE)), 2),
    "reshape to an output": Case("merge_reshapes", lambda n, x: shaped(n, relu(n, x), (8, -1), IMAGE), 1),
    "reshapes with a reader between": Case(
        "merge_reshapes", lambda n, x: both_and(n, shaped(n, x, (8, -1)), lambda n, y: shaped(n, y, (4, -1))), 0
    ),
    "transposition of one": Case(
        "merge_reshapes", lambda n, x: shaped(n, n.add("Transpose", x, perm=[1, 0, 2]), (4, 7)), 1, (1, 4, 7)
    ),
    "transposition": Case("merge_reshapes", lambda n, x: n.add("Transpose", x, perm=[1, 0, 2]), 0, STEPS),
    "silu": Case("gate_activations", gate, 1),
    "silu, gate first": Case("gate_activations", lambda n, x: gate(n, n.conv(x, 4, 4), first=True), 1),
    "hard swish": Case("gate_activations", lambda n, x: gate(n, x, "HardSigmoid", alpha=SIXTH, beta=0.5), 1),
    "hard sigmoid of another slope": Case("gate_activations", lambda n, x: gate(n, x, "HardSigmoid"), 0),
    "hard sigmoid of another offset": Case(
        "gate_activations", lambda n, x: gate(n, x, "HardSigmoid", alpha=SIXTH, beta=0.4), 0
    ),
    "gate of another function": Case("gate_activations", lambda n, x: gate(n, x, "Tanh"), 0),
    "gate of another value": Case(
        "gate_activations", lambda n, x: n.add("Mul", x, n.add("Sigmoid", n.add("Neg", x))), 0
    ),
    "gate added": Case("gate_activations", lambda n, x: n.add("Add", x, n.add("Sigmoid", x)), 0),
    "gate read twice": Case("gate_activations", lambda n, x: _gate_twice(n, x), 0),
    "gate as output": Case("gate_activations", lambda n, x: _gate_output(n, x), 0),
    "gate squared": Case("gate_activations", lambda n, x: _square(n, n.add("Sigmoid", x)), 0),
    "squeeze and excite": Case(
        "gate_activations", lambda n, x: n.add("Mul", x, n.add("Sigmoid", n.add("GlobalAveragePool", x))), 0
    ),
    "pad": Case("fold_pads", lambda n, x: n.conv(pads(n, x, 0, 0, 1, 2, 0, 0, 0, 3), 4, 4), 1),
    "pad of a pad": Case(
        "fold_pads",
        lambda n, x: n.conv(pads(n, pads(n, x, 0, 0, 1, 0, 0, 0, 0, 1), 0, 0, 0, 2, 0, 0, 1, 0), 4, 4, strides=[2, 2]),
        2,
    ),
    "pad before a counted mean": Case(
        "fold_pads",
        lambda n, x: n.add("AveragePool", pads(n, x, 0, 0, 1, 1, 0, 0, 1, 1), kernel_shape=[3, 3], count_include_pad=1),
        1,
    ),
    "pad before a mean that counts nothing": Case(
        "fold_pads", lambda n, x: n.add("AveragePool", pads(n, x, 0, 0, 1, 1, 0, 0, 1, 1), kernel_shape=[3, 3]), 0
    ),
    "pad before a maximum": Case(
        "fold_pads", lambda n, x: n.add("MaxPool", pads(n, x, 0, 0, 1, 1, 0, 0, 1, 1), kernel_shape=[3, 3]), 0
    ),
    "pad before a transposed convolution": Case(
        "fold_pads", lambda n, x: transposed(n, pads(n, x, 0, 0, 1, 1, 0, 0, 1, 1), 4, 3, 1, True), 0
    ),
    "pad by another value": Case(
        "fold_pads", lambda n, x: n.conv(pads(n, x, 0, 0, 1, 1, 0, 0, 1, 1, value=0.5), 4, 4), 0
    ),
    "pad of channels": Case("fold_pads", lambda n, x: n.conv(pads(n, x, 0, 0, 1, 1, 0, 1, 1, 1), 4, 5), 0),
    "pad by reflection": Case(
        "fold_pads", lambda n, x: n.conv(n.add("Pad", x, ints(n, 0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"), 4, 4), 0
    ),
    "pad read twice": Case("fold_pads", lambda n, x: _pad_twice(n, x), 0),
    "pad as output": Case(
        "fold_pads", lambda n, x: both_and(n, pads(n, x, 0, 0, 1, 1, 0, 0, 1, 1), lambda m, y: m.conv(y, 4, 4)), 0
    ),
    "pad and a residual": Case(
        "fold_pads", lambda n, x: n.add("Add", n.conv(pads(n, x, 0, 0, 1, 1, 0, 0, 1, 1), 4, 4, pads=[0] * 4), x), 1
    ),
    "convolution, normalised": Case("fold_scale_shift", lambda n, x: normal(n, n.conv(x, 4, 4)), 1),
    "convolution without bias, normalised": Case(
        "fold_scale_shift", lambda n, x: normal(n, n.add("Conv", x, n.weight(4, 4, 1, 1))), 1
    ),
    "depthwise, normalised": Case("fold_scale_shift", lambda n, x: normal(n, n.conv(x, 4, 4, group=4)), 1),
    "grouped, normalised, scaled": Case(
        "fold_scale_shift", lambda n, x: scale(n, normal(n, n.conv(x, 4, 4, group=2))), 2
    ),
    "transposed, normalised": Case("fold_scale_shift", lambda n, x: normal(n, transposed(n, x, 4, 4, 1, True)), 1),
    "transposed, grouped, normalised": Case(
        "fold_scale_shift", lambda n, x: normal(n, transposed(n, x, 4, 2, 2, False)), 1
    ),
    "transposed, depthwise, normalised": Case(
        "fold_scale_shift", lambda n, x: normal(n, transposed(n, x, 4, 1, 4, True)), 1
    ),
    "matrix, normalised": Case("fold_scale_shift", lambda n, x: normal(n, matrix(n, x, 5, 4, True)), 1, (3, 5)),
    "normalised twice": Case("fold_scale_shift", lambda n, x: normal(n, normal(n, relu(n, x))), 1),
    "shifted only": Case("fold_scale_shift", lambda n, x: n.add("Add", n.conv(x, 4, 4), n.weight(4, 1, 1, zeros=0)), 1),
    "scaled by one number": Case("fold_scale_shift", lambda n, x: n.add("Div", n.conv(x, 4, 4), scalar(n, 3.0)), 1),
    "scaled by zero": Case("fold_scale_shift", lambda n, x: n.add("Mul", n.conv(x, 4, 4), scalar(n, 0.0)), 1),
    "divided by zero": Case("fold_scale_shift", lambda n, x: n.add("Div", scalar(n, 1.0), n.conv(x, 4, 4)), 0),
    "subtracted from": Case("fold_scale_shift", lambda n, x: n.add("Sub", scalar(n, 1.0), n.conv(x, 4, 4)), 1),
    "scaled along the width": Case(
        "fold_scale_shift", lambda n, x: n.add("Mul", n.conv(x, 4, 4), n.weight(4, zeros=0)), 0, (2, 4, 6, 4)
    ),
    "scaled along the height": Case(
        "fold_scale_shift", lambda n, x: n.add("Mul", n.conv(x, 4, 4), n.weight(4, 1, zeros=0)), 0, (2, 4, 4, 6)
    ),
    "scaled per image": Case(
        "fold_scale_shift", lambda n, x: n.add("Mul", n.conv(x, 4, 4), n.weight(4, 1, 1, 1, zeros=0)), 0, (4, 4, 3, 3)
    ),
    "activated, then normalised": Case("fold_scale_shift", lambda n, x: normal(n, relu(n, n.conv(x, 4, 4))), 0),
    "read twice, then normalised": Case("fold_scale_shift", lambda n, x: twice(n, n.conv(x, 4, 4), normal), 0),
    "output, then normalised": Case("fold_scale_shift", lambda n, x: both_and(n, n.conv(x, 4, 4), normal), 0),
    "matrix of three axes, scaled per row": Case(
        "fold_scale_shift", lambda n, x: batch_norm(n, matrix(n, x, 5, 4), 6), 0, (2, 6, 5)
    ),
    "pooled, then normalised": Case(
        "fold_scale_shift", lambda n, x: normal(n, n.add("MaxPool", x, kernel_shape=[2, 2])), 0
    ),
    "bias": Case("fold_bias", lambda n, x: n.add("Add", matrix(n, x, 7, 5), n.weight(5, zeros=0)), 1, (2, 3, 6, 7)),
    "bias first, on three axes": Case(
        "fold_bias", lambda n, x: n.add("Add", n.weight(1, 1, 5, zeros=0), matrix(n, x, 7, 5)), 1, (2, 6, 7)
    ),
    "bias behind a bias": Case(
        "fold_bias",
        lambda n, x: n.add("Add", n.add("Add", matrix(n, x, 7, 5), n.weight(5, zeros=0)), n.weight(1, 5, zeros=0)),
        2,
        (6, 2, 7),
    ),
    "bias of rank 2 on two axes": Case(
        "fold_bias", lambda n, x: n.add("Add", matrix(n, x, 7, 6), n.weight(6, 1, zeros=0)), 0, (6, 7)
    ),
    "bias along the rows": Case(
        "fold_bias", lambda n, x: n.add("Add", matrix(n, x, 7, 5), n.weight(6, 1, zeros=0)), 0, (2, 3, 6, 7)
    ),
    "bias per element": Case(
        "fold_bias", lambda n, x: n.add("Add", matrix(n, x, 7, 5), n.weight(6, 5, zeros=0)), 0, (2, 6, 7)
    ),
    "bias of more axes": Case(
        "fold_bias", lambda n, x: n.add("Add", matrix(n, x, 7, 5), n.weight(1, 1, 1, 5, zeros=0)), 0, (2, 6, 7)
    ),
    "bias of an outer axis": Case(
        "fold_bias", lambda n, x: n.add("Add", matrix(n, x, 7, 1), n.weight(6, zeros=0)), 0, (2, 1, 7)
    ),
    "bias behind an activation": Case(
        "fold_bias", lambda n, x: n.add("Add", relu(n, matrix(n, x, 7, 5)), n.weight(5, zeros=0)), 0, (2, 3, 7)
    ),
    "subtracted, not added": Case(
        "fold_bias", lambda n, x: n.add("Sub", n.weight(5, zeros=0), matrix(n, x, 7, 5)), 0, (2, 3, 7)
    ),
    "bias, read twice": Case(
        "fold_bias",
        lambda n, x: twice(n, matrix(n, x, 7, 5), lambda m, y: m.add("Add", y, m.weight(5, zeros=0))),
        0,
        (2, 3, 7),
    ),
    "residual": Case("fuse_residuals", lambda n, x: n.add("Add", n.conv(x, 4, 4), x), 1),
    "residual of two convolutions": Case("fuse_residuals", shuffled_residual, 1),
    "residuals in a chain": Case("fuse_residuals", chained_residuals, 3),
    "residual of a matrix": Case("fuse_residuals", lambda n, x: n.add("Add", x, matrix(n, x, 7, 7)), 1, (2, 3, 7)),
    "residual made later": Case(
        "fuse_residuals", lambda n, x: n.add("Add", n.conv(x, 4, 4), n.add("Neg", relu(n, x))), 1
    ),
    "residual of itself": Case("fuse_residuals", residual_of_itself, 0),
    "doubled": Case("fuse_residuals", lambda n, x: _double(n, n.conv(x, 4, 4)), 0),
    "residual that broadcasts": Case(
        "fuse_residuals", lambda n, x: n.add("Add", n.conv(x, 4, 4), n.add("GlobalMaxPool", x)), 0
    ),
    "residual of another batch": Case(
        "fuse_residuals", lambda n, x: n.add("Add", n.conv(x, 4, 4), n.add("ReduceMean", x, axes=[0])), 0
    ),
    "residual smaller than the sum": Case(
        "fuse_residuals", lambda n, x: n.add("Add", n.conv(n.add("GlobalMaxPool", x), 4, 4), x), 0
    ),
    "residual subtracted": Case("fuse_residuals", lambda n, x: n.add("Sub", n.conv(x, 4, 4), x), 0),
    "residual behind an activation": Case("fuse_residuals", lambda n, x: n.add("Add", relu(n, n.conv(x, 4, 4)), x), 0),
    "residual of a transposed convolution": Case(
        "fuse_residuals", lambda n, x: n.add("Add", n.add("ConvTranspose", x, n.weight(4, 4, 1, 1)), x), 0
    ),
    "residual to an output": Case(
        "fuse_residuals", lambda n, x: both_and(n, n.conv(x, 4, 4), lambda m, y: m.add("Add", y, x)), 0
    ),
    "activation": Case("fuse_activations", lambda n, x: relu(n, n.conv(x, 4, 4)), 1),
    "activation of a sum": Case("fuse_activations", lambda n, x: relu(n, n.add("Add", n.conv(x, 4, 4), x)), 1),
    "activation of a transposed convolution": Case(
        "fuse_activations", lambda n, x: n.add("Tanh", transposed(n, x, 4, 2, 2, True)), 1
    ),
    "activation of a matrix": Case(
        "fuse_activations", lambda n, x: n.add("Elu", matrix(n, x, 7, 5), alpha=0.5), 1, (2, 3, 7)
    ),
    "two activations": Case("fuse_activations", lambda n, x: n.add("Sigmoid", relu(n, n.conv(x, 4, 4))), 1),
    "silu of a convolution": Case("fuse_activations", lambda n, x: gate(n, n.conv(x, 4, 4)), 1),
    "slope per channel": Case("fuse_activations", lambda n, x: prelu(n, n.conv(x, 4, 4), 4, 1, 1), 1),
    "slope per channel, four axes": Case("fuse_activations", lambda n, x: prelu(n, n.conv(x, 4, 4), 1, 4, 1, 1), 1),
    "slope of one": Case("fuse_activations", lambda n, x: prelu(n, n.conv(x, 4, 4), 1), 1),
    "slope of a matrix": Case("fuse_activations", lambda n, x: prelu(n, matrix(n, x, 7, 5, True), 5), 1, (3, 7)),
    "slope of a transposed convolution": Case(
        "fuse_activations", lambda n, x: prelu(n, transposed(n, x, 4, 2, 2, True), 4, 1, 1), 1
    ),
    "slope of a matrix of three axes": Case(
        "fuse_activations", lambda n, x: prelu(n, matrix(n, x, 7, 5), 6, 1), 0, (2, 6, 7)
    ),
    "slope of a matrix of four axes": Case(
        "fuse_activations", lambda n, x: prelu(n, matrix(n, x, 7, 4), 4, 1, 1), 0, (2, 4, 6, 7)
    ),
    "activation of a mean": Case("fuse_activations", lambda n, x: relu(n, n.add("GlobalAveragePool", x)), 0),
    "activation, read twice": Case("fuse_activations", lambda n, x: twice(n, n.conv(x, 4, 4), relu), 0),
    "activation of an output": Case("fuse_activations", lambda n, x: both_and(n, n.conv(x, 4, 4), relu), 0),
    "activation of a product": Case("fuse_activations", lambda n, x: relu(n, n.add("Mul", n.conv(x, 4, 4), x)), 0),
}


def _gate_twice(net: Net, x: str) -> str:
    side = net.add("Sigmoid", x)
    return net.add("Concat", net.add("Mul", x, side), side, axis=1)


def _gate_output(net: Net, x: str) -> tuple[str, ...]:
    side = net.add("Sigmoid", x)
    return net.add("Mul", x, side), side


def _square(net: Net, x: str) -> str:
    return net.add("Mul", x, x)


def _double(net: Net, x: str) -> str:
    return net.add("Add", x, x)


def _pad_twice(net: Net, x: str) -> str:
    padded = pads(net, x, 0, 0, 1, 1, 0, 0, 1, 1)
    return net.add("Add", net.conv(padded, 4, 4), padded)


CASES["bias of four axes, then a convolution"] = Case(
    "fold_bias", lambda n, x: n.conv(n.add("Add", matrix(n, x, 7, 5), n.weight(5, zeros=0)), 3, 3), 1, (2, 3, 6, 7)
)
CASES["residual of a matrix of four axes"] = Case(
    "fuse_residuals",
    lambda n, x: n.add("Add", n.conv(relu(n, x), 3, 3), n.add("Add", x, matrix(n, x, 7, 7))),
    2,
    (2, 3, 6, 7),
)


def _classifier(net: Net, x: str, k: int, axis: int = 1) -> str:
    return matrix(net, net.add("Flatten", x, axis=axis), k, 5, bias=True)


def _classifier_and_flat(net: Net, x: str) -> str:
    flat = net.add("Flatten", net.conv(x, 4, 4))
    return net.add("Concat", matrix(net, flat, 168, 5), flat, axis=1)


CASES |= {
    "flattened feature map": Case("fold_flattening", lambda n, x: _classifier(n, n.conv(x, 4, 4), 168), 1),
    "flattened input": Case("fold_flattening", lambda n, x: _classifier(n, x, 168), 1),
    "flattened planes": Case("fold_flattening", lambda n, x: _classifier(n, n.conv(x, 4, 4), 42, axis=2), 0),
    "flattened line": Case("fold_flattening", lambda n, x: _classifier(n, x, 7), 0, (2, 1, 1, 7)),
    "flattened, read twice": Case("fold_flattening", _classifier_and_flat, 0),
}
