"""Each attack: in the ball, better than random, the same again; gradients from answers are those of autograd."""

import pytest
import torch

from prunus.audit.attacks import ATTACKS
from prunus.audit.attacks.deepfool import DeepFoolUap
from prunus.audit.attacks.steps import Learned, Maml, Pgd
from prunus.audit.ball import NORMS, Ball, size
from prunus.audit.objective import Objective, margins
from prunus.audit.optimiser import load
from prunus.audit.problem import Problem, Queries, signs
from prunus.audit.tasks import draw
from prunus.audit.victims import Victim, of_module
from prunus.errors import AuditError
from tests.audit.toy import CLASSES, images, trained

EPS = {"linf": 0.2, "l2": 1.6}


@pytest.fixture(scope="module")
def victim() -> Victim:
    return of_module(trained(), (1, 8, 8))


def problem_of(
    victim: Victim, norm: str = "linf", tasks: int = 2, objective: Objective | None = None
) -> tuple[Problem, torch.Tensor, torch.Tensor]:
    found = draw(images(160, 3), tasks, CLASSES, 2, 16, torch.Generator().manual_seed(0))
    ball = Ball(EPS[norm], norm)  # type: ignore[arg-type]
    return Problem(victim, found.x, found.y, ball, objective or Objective()), found.held_x, found.held_y


def success(problem: Problem, delta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> float:
    answers = problem.victim.classify(problem.ball.add(x, delta).flatten(0, 1))
    return float(problem.objective.succeeded(answers, y.flatten()).float().mean())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", [*ATTACKS, "learned", "maml"])
def test_in_the_ball_and_fools_held_out_images(name: str, norm: str, victim: Victim) -> None:
    problem, x, y = problem_of(victim, norm)
    made = {"learned": lambda: Learned(load()), "maml": lambda: Maml(torch.zeros(1, 1, 8, 8))}
    attack = made[name]() if name in made else ATTACKS[name]
    path = attack(problem, 10)
    assert 1 <= len(path) <= 10
    for delta in path:
        assert delta.shape == problem.zero.shape
        assert (size(delta, problem.ball.norm) <= problem.ball.eps * 1.0001).all()
    again = attack(problem, 10)
    assert all(torch.equal(a, b) for a, b in zip(path, again, strict=True))
    rate = success(problem, path[-1], x, y)
    assert rate < 0.3 if name == "random" else rate > 0.35, rate


def test_larger_balls_fool_more(victim: Victim) -> None:
    problem, x, y = problem_of(victim)
    rates = []
    for factor in (0.1, 1.0, 3.0):
        wider = Problem(victim, problem.x, problem.y, problem.ball.scaled(factor))
        rates.append(success(wider, Pgd()(wider, 15)[-1], x, y))
    assert rates[0] < 0.1 and rates[0] < rates[1] <= rates[2] and rates[2] > 0.7, rates


def test_a_target_is_what_answers_become(victim: Victim) -> None:
    problem, x, y = problem_of(victim, objective=Objective(target=2))
    wide = Problem(victim, problem.x, problem.y, problem.ball.scaled(1.5), problem.objective)
    assert success(wide, Pgd()(wide, 15)[-1], x, y) > 0.8


def test_l1_makes_sparser_perturbations(victim: Victim) -> None:
    problem, _, _ = problem_of(victim)
    plain = Pgd(0.05)(problem, 20)[-1].abs().mean()
    pressed = Problem(victim, problem.x, problem.y, problem.ball, Objective(l1=40.0))
    assert Pgd(0.05)(pressed, 20)[-1].abs().mean() < 0.8 * plain


def test_a_clamped_margin_has_no_gradient_once_fooled() -> None:
    logits = torch.tensor([[0.0, 3.0], [2.0, 0.0]], requires_grad=True)
    y = torch.zeros(2, dtype=torch.int64)
    assert margins(logits, y).tolist() == [-3.0, 2.0]
    Objective(kappa=0.0).losses(logits, y).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and logits.grad.tolist() == [[0.0, 0.0], [1.0, -1.0]]


def test_gradients_from_answers_point_the_same_way(victim: Victim) -> None:
    problem, x, y = problem_of(victim)
    asked = Queries(torch.Generator().manual_seed(0), directions=200, reach=0.1)
    blind = Problem(victim, problem.x, problem.y, problem.ball, problem.objective, asked)
    a, b = (p.gradient(p.zero).mean.flatten(1) for p in (problem, blind))
    assert (torch.cosine_similarity(a, b) > 0.6).all()
    before = victim.meter.images
    path = Pgd()(
        Problem(
            victim, problem.x, problem.y, problem.ball, problem.objective, Queries(torch.Generator().manual_seed(1), 60)
        ),
        15,
    )
    assert victim.meter.images - before == 15 * 60 * 2 * problem.y.numel()
    assert success(problem, path[-1], x, y) > 0.3


def test_directions_are_alike_on_squares() -> None:
    found = signs((2, 3, 50, 70), Queries(torch.Generator().manual_seed(0), cells=100))
    assert found.shape == (2, 3, 50, 70) and set(found.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(found[..., 0:6:6, :], found[..., 5:6, :]) and not torch.equal(found[0], found[1])


def test_gradients_of_chunks_are_those_of_all(victim: Victim) -> None:
    problem, _, _ = problem_of(victim)
    fixed = Victim("fixed", victim.answers, victim.shape, victim.classes, True, batch=5)
    parts = Problem(fixed, problem.x, problem.y, problem.ball)
    a, b = (p.gradient(p.zero + 0.01) for p in (problem, parts))
    for one, other in ((a.mean, b.mean), (a.loss, b.loss), (a.spread, b.spread)):
        torch.testing.assert_close(one, other)


def test_deepfool_steps_over_the_boundary_of_a_linear_network() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    network[1].weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    network[1].bias.data = torch.tensor([0.0, 0.5])
    victim = of_module(network, (4,))
    x = torch.tensor([[[0.9, 0.2, 0.3, 0.4]]])
    found = DeepFoolUap()(Problem(victim, x, torch.zeros(1, 1, dtype=torch.int64), Ball(10.0, low=-9, high=9)), 3)
    assert len(found) == 1  # fooled after one pass
    torch.testing.assert_close(found[0], torch.tensor([[-0.4 * 1.02, 0, 0, 0]]), atol=1e-4, rtol=1e-4)


def test_gradients_that_are_not_finite_name_the_victim() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.flatten(1).sum(1), (x * 0).flatten(1).sum(1).sqrt()], 1)

    problem = Problem(
        of_module(Broken(), (1, 8, 8), "odd.onnx"),
        torch.ones(1, 2, 1, 8, 8),
        torch.zeros(1, 2, dtype=torch.int64),
        Ball(0.1),
    )
    with pytest.raises(AuditError, match=r"odd\.onnx: its gradient has values that aren't finite"):
        Pgd()(problem, 3)
    with pytest.raises(AuditError, match=r"odd\.onnx"):
        DeepFoolUap()(problem, 3)
