"""Targets that aren't here: times without measuring, marked as such, in a sensible order."""

from prunus.mapping.estimate import CORES, core_of
from prunus.mapping.network import read_network
from prunus.mapping.options import full_space, sources_of
from prunus.mapping.plan import Budget, make_plan
from prunus.mapping.rules import Terms
from prunus.runtime.cpu import TARGETS
from prunus.sparsity.scheme import parse
from tests.mapping.fakes import network


def test_every_target_has_a_core() -> None:
    assert {core_of(target) for target in TARGETS} <= set(CORES.values())


def test_estimates_fall_with_sparsity_and_say_what_they_are() -> None:
    about = sources_of(read_network(network(), target="aarch64-neon", threads=1))
    site = about.network.sites[3]
    dense = about.table.dense(site)
    times = [about.table.time(site, parse("punched:8x4"), sparsity) for sparsity in (0.5, 0.8, 0.95)]
    assert not dense.measured and not any(time.measured for time in times)
    assert [time.ms for time in times] == sorted((time.ms for time in times), reverse=True) and times[0].ms < dense.ms
    assert about.table.time(site, parse("unstructured"), 0.8).ms > times[1].ms
    assert not any(option.measured for layer in full_space(about, (0.8,)).layers for option in layer.options)
    plan = make_plan(about, Budget("speedup", 1.1), "rules", Terms())
    assert plan.about["machine"] == "aarch64-neon, estimated"
