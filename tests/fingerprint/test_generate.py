"""Examples: where they lie, that they are made alike every time, and that the owner's network knows them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from prunus.errors import FingerprintError
from prunus.fingerprint.disturb import disturbance
from prunus.fingerprint.domain import Domain
from prunus.fingerprint.highpass import high_pass, high_share, kept
from prunus.fingerprint.make import Begun, make
from prunus.fingerprint.method import DRAWS, KINDS, Method
from prunus.fingerprint.owner import owner_of_file, owner_of_module
from prunus.fingerprint.secret import starts_of
from prunus.training.export import export_onnx
from tests.fingerprint.toy import DOMAIN, SHAPE, trained, write

SECRET = bytes(range(32))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained(0)


class Words(nn.Module):
    """A GRU that tells four kinds of sequences apart, by its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.linear = nn.GRU(3, 12, batch_first=True), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.gru(x)[0][:, -1])  # type: ignore[no-any-return]


def words() -> nn.Module:
    """Trained in a moment to tell the signs of two features in the last step."""
    torch.manual_seed(0)
    net = Words()
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):
        x = torch.randn(64, 9, 3)
        y = (x[:, -1, 0] > 0).long() + 2 * (x[:, -1, 1] > 0).long()
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", DRAWS)
def test_examples_are_near_and_known(kind: str, draw: str, net: nn.Module) -> None:
    method = Method(kind, 0.4, steps=15, draws=2, noise=0.3, draw=draw, cutoff=0.25)  # type: ignore[arg-type]
    owner = owner_of_module(net, SHAPE)
    made, again = (make(owner, DOMAIN, method, 24, secret=SECRET) for _ in range(2))
    np.testing.assert_array_equal(made.examples, again.examples)
    assert made.salt != again.salt
    starts = starts_of(SECRET, 24, SHAPE)
    assert np.abs(made.examples.astype(int) - starts).max() <= method.most == 102
    assert made.own >= 18 and made.own == (owner.labels(DOMAIN.values(made.examples)) == made.targets).sum()
    assert made.first == tuple(owner.labels(DOMAIN.values(starts)))


def test_noise_makes_a_difference_and_seeds_too(net: nn.Module) -> None:
    owner = owner_of_module(net, SHAPE)
    plain, robust = (make(owner, DOMAIN, Method(kind, steps=5), 10, secret=SECRET).examples for kind in ("c", "rc"))
    assert not np.array_equal(plain, robust)
    assert not np.array_equal(plain, make(owner, DOMAIN, Method("c", steps=5), 10, secret=bytes(32)).examples)


def test_high_frequencies_are_where_ltrc_differs(net: nn.Module) -> None:
    owner, starts = owner_of_module(net, SHAPE), starts_of(SECRET, 10, SHAPE).astype(np.float32)
    shares = {}
    for kind in KINDS:
        made = make(owner, DOMAIN, Method(kind, 0.2, steps=10, cutoff=0.75), 10, secret=SECRET)  # type: ignore[arg-type]
        shares[kind] = high_share(made.examples - starts, 0.75).mean()
    assert shares["ltrc"] > 0.8 > shares["c"]


def test_a_sequence_classifier(tmp_path: Path) -> None:
    export_onnx(words(), tmp_path / "gru.onnx", torch.zeros(2, 9, 3))
    owner = owner_of_file(tmp_path / "gru.onnx", {"x": (1, 9, 3)})
    assert (owner.shape, owner.classes, owner.batch) == ((9, 3), 4, 20)
    domain = Domain((9, 3), (-3.0,), (3.0,))
    made = make(owner, domain, Method("ltrc", 0.5, steps=20, draws=2, noise=0.2, cutoff=0.25), 20, secret=SECRET)
    assert made.examples.shape == (20, 9, 3) and made.own >= 15


def test_from_pictures(net: nn.Module) -> None:
    owner = owner_of_module(net, SHAPE)
    pictures = np.random.default_rng(0).random((30, *SHAPE), np.float32)
    made = make(owner, DOMAIN, Method("c", 0.3, steps=5), 10, images=pictures, secret=SECRET)
    assert made.origin == "images" and made.starts is not None
    levels = {tuple(p.ravel()) for p in DOMAIN.levels(pictures)}
    assert all(tuple(start.ravel()) in levels for start in made.starts)


def test_goes_on_where_it_stopped(net: nn.Module) -> None:
    owner, method, kept_ = owner_of_module(net, SHAPE), Method(steps=3, draws=1), list[Begun]()
    whole = make(owner, DOMAIN, method, 25, secret=SECRET, part=10, keep=kept_.append)
    assert [len(begun.examples) for begun in kept_] == [10, 20, 25]
    rest = make(owner, DOMAIN, method, 25, begun=kept_[0], part=10)
    np.testing.assert_array_equal(rest.examples, whole.examples)
    assert rest.secret == whole.secret


def test_a_fixed_batch_and_a_softmax(net: nn.Module, tmp_path: Path) -> None:
    write(nn.Sequential(net, nn.Softmax(1)), tmp_path / "soft.onnx")
    model = onnx.load(tmp_path / "soft.onnx")
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 4
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "fixed.onnx")
    fixed, free = owner_of_file(tmp_path / "fixed.onnx"), owner_of_module(net, SHAPE)
    assert (fixed.batch, fixed.probabilities, free.probabilities) == (4, True, False)
    method = Method("c", 0.3, steps=5)
    one, other = (make(owner, DOMAIN, method, 10, secret=SECRET) for owner in (fixed, free))
    assert (one.examples == other.examples).mean() > 0.97 and one.first == other.first


def test_weights_are_given_back(net: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    make(owner_of_module(net, SHAPE), DOMAIN, Method(steps=3), 10)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_disturbances(net: nn.Module) -> None:
    drawn = disturbance(net, Method("rc", noise=0.5), 1)()
    assert set(drawn) == {"0.weight", "2.weight", "5.weight"}
    weight = net.get_parameter("2.weight")
    apart = (drawn["2.weight"] - weight).abs()
    assert 0 < float(apart.max()) <= 0.5 * float(weight.std()) * 1.0001
    pruned = disturbance(net, Method("rc", noise=0.9, draw="pruning"), 1)
    shares = [float((pruned()["2.weight"] == 0).float().mean()) for _ in range(20)]
    assert max(shares) <= 0.9 and max(shares) - min(shares) > 0.3


@pytest.mark.parametrize("shape", [(2, 6, 10), (12, 3)])
def test_high_pass_is_a_projection(shape: tuple[int, ...]) -> None:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    high = high_pass(x, 0.4)
    torch.testing.assert_close(high_pass(high, 0.4), high, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close((high * (x - high)).sum(), torch.tensor(0.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(high_pass(x, 0.0), x, atol=1e-5, rtol=1e-4)
    flat = torch.ones(1, *shape)
    assert float(high_pass(flat, 0.1).abs().max()) < 1e-5


def test_which_frequencies_stay() -> None:
    np.testing.assert_array_equal(kept((1, 2, 4), 0.5), [[False, False, True, True], [False, True, True, True]])
    np.testing.assert_array_equal(kept((4, 7), 0.5)[:, 0], [False, False, True, True])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "x"}, "method 'x': expected one of c, rc, ltrc"),
        ({"eps": 0.0}, "eps: found 0, expected"),
        ({"steps": 0}, "steps: found 0"),
        ({"draws": 0}, "draws: found 0"),
        ({"cutoff": 3.0}, "cutoff: found 3"),
        ({"draw": "dice"}, "draw 'dice'"),
        ({"draw": "pruning", "noise": 2.0}, "noise: found 2, expected a share"),
    ],
)
def test_methods_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(FingerprintError, match=said):
        Method(**values)  # type: ignore[arg-type]


def test_makings_refused(net: nn.Module, tmp_path: Path) -> None:
    owner = owner_of_module(net, SHAPE)
    for arguments, said in (
        ({"n": 2}, "examples: found 2, expected 7 at least"),
        ({"alpha": 1.0}, "alpha: found 1"),
        ({"images": np.zeros((9, *SHAPE), np.float32), "n": 10}, "images: found 9, expected 10"),
        ({"images": np.zeros((9, 1, 4, 4), np.float32), "n": 8}, r"images: found \[1, 4, 4\], expected \[1, 8, 8\]"),
    ):
        with pytest.raises(FingerprintError, match=said):
            make(owner, DOMAIN, Method(steps=1), **arguments)  # type: ignore[arg-type]
    with pytest.raises(FingerprintError, match=r"takes \[1, 8, 8\], found bounds for \[1, 4, 4\]"):
        make(owner, Domain((1, 4, 4)))
    for module, shape, expected in (
        (nn.Identity(), SHAPE, r"answers \[2, 1, 8, 8\], expected \[2, classes\]"),
        (nn.Flatten(), (8,), r"takes inputs of \[8\], expected"),
    ):
        with pytest.raises(FingerprintError, match=expected):
            owner_of_module(module, shape)
