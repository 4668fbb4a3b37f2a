"""Rules that give each layer a scheme and block without any training, each with its reason.

Source: "Automatic mapping of the best-suited DNN pruning schemes", TODAES 27 (2022), arXiv:2111.11581, section on
rule-based mapping; its tolerance isn't known, ours is an argument, and rules about break-even and ends are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from prunus.mapping.network import Site
from prunus.mapping.options import BLOCKS, PUNCHED, SPARSITIES, Sources, option, pays, space_of, sparsities_of
from prunus.mapping.space import Option, Space
from prunus.mapping.table import can_take
from prunus.sparsity.scheme import Scheme, parse

DIFFICULTIES = ("easy", "hard")
BETA = 0.15  # how much slower than whole filters a block may be
WHOLE = parse("filter")
PATTERN = parse("pattern:4")


@final
@dataclass(frozen=True)
class Terms:
    """difficulty: of the data set, which decides what 3x3 convolutions get. beta: see BETA. ends: may the first layer
    and the last classifier be pruned?"""

    difficulty: str = "easy"
    beta: float = BETA
    ends: bool = False
    sparsities: tuple[float, ...] = SPARSITIES


@final
@dataclass(frozen=True, eq=False)
class Ruled:
    """One option per layer and sparsity, and why, by the layer's name and the option's sparsity (0: why dense)."""

    space: Space
    reasons: Mapping[tuple[str, float], str]


def rule_0_stays(site: Site, terms: Terms) -> str:
    """Rule 0: the first convolution and the last classifier stay dense: few weights, and errors there go everywhere."""
    if site.refusal and "depthwise" not in site.refusal:
        return f"rule 0: {site.refusal}"
    if not terms.ends and site.first:
        return "rule 0: the first convolution stays dense"
    if not terms.ends and site.last:
        return "rule 0: the last classifier stays dense"
    return ""


def rule_1_depthwise(site: Site) -> str:
    """Rule 1: depthwise and grouped convolutions stay: little of the work, and sensitive."""
    return f"rule 1: {site.refusal}, never pruned" if "depthwise" in site.refusal else ""


def rule_2_three_by_three(site: Site, terms: Terms, sparsity: float) -> Scheme | None:
    """Rule 2: 3x3 convolutions take patterns for hard data sets, where the sparsity permits them."""
    able = site.kernel == (3, 3) and terms.difficulty == "hard" and bool(sparsities_of(PATTERN, (sparsity,)))
    return PATTERN if able and can_take(site, PATTERN) else None


def rule_3_blocks(site: Site, precision: str) -> tuple[Scheme, ...]:
    """Rule 3: all other convolutions take punched blocks, fully connected and recurrent layers blocks or BCR; smallest
    first."""
    names = PUNCHED[precision] if site.kernel else BLOCKS
    return tuple(scheme for scheme in map(parse, names) if can_take(site, scheme))


def rule_4_smallest(options: Sequence[Option], whole_ms: float, beta: float) -> tuple[Option, str]:
    """Rule 4: the smallest block that takes at most (1 + beta) of the time of whole filters; else the fastest."""
    fastest = min(options, key=lambda each: each.ms)
    limit = max((1 + beta) * whole_ms, fastest.ms)
    chosen = next(each for each in options if each.ms <= limit)
    others = [each for each in options if each is not chosen]
    rival = min(others, key=lambda each: each.ms, default=None)
    size = "smallest block" if chosen.ms <= (1 + beta) * whole_ms else "fastest block"
    text = f"rule 4: {size}, {chosen.ms:.4g} ms for {whole_ms:.4g} of whole filters"
    return chosen, text + (f"; {rival.scheme} {rival.ms:.4g}" if rival else "")


def rule_5_break_even(found: Option, dense: Option) -> str:
    """Rule 5: what isn't clearly faster than dense isn't pruned."""
    return (
        ""
        if pays(found, dense)
        else (f"rule 5: {found.scheme} at {found.sparsity:g} takes {found.ms:.4g} ms, dense {dense.ms:.4g}")
    )


def rule_based(sources: Sources, terms: Terms) -> Ruled:
    """The space that is left once the rules have spoken: which sparsity each layer gets is up to the budget."""
    reasons: dict[tuple[str, float], str] = {}

    def options_of(site: Site, dense: Option) -> list[Option]:
        if why := rule_1_depthwise(site) or rule_0_stays(site, terms):
            reasons[site.name, 0.0] = why
            return []
        found, slow = [], ""
        for sparsity in terms.sparsities:
            chosen, why = _ruled(sources, site, sparsity, terms, dense)
            if chosen is None:
                continue
            slow = rule_5_break_even(chosen, dense)
            if not slow:
                found.append(chosen)
                reasons[site.name, chosen.sparsity] = why
        reasons[site.name, 0.0] = "the budget is met without it" if found else slow or "rule 3: no scheme fits"
        return found

    return Ruled(space_of(sources, options_of), reasons)


def _ruled(sources: Sources, site: Site, sparsity: float, terms: Terms, dense: Option) -> tuple[Option | None, str]:
    """Rules 2 to 4; of blocks those that rule 5 permits, if there are any."""
    pattern = rule_2_three_by_three(site, terms, sparsity)
    if pattern is not None:
        return option(sources, site, pattern, sparsity), "rule 2: pattern, a hard data set and 3x3"
    ladder = rule_3_blocks(site, sources.network.precision)
    if not ladder:
        return None, ""
    options = [option(sources, site, scheme, sparsity) for scheme in ladder]
    whole = sources.placed.ms(site.name, sources.table.time(site, WHOLE, sparsity).ms)
    chosen, why = rule_4_smallest([each for each in options if pays(each, dense)] or options, whole, terms.beta)
    if site.kernel == (3, 3):
        cause = "an easy data set and 3x3" if terms.difficulty == "easy" else "patterns have 5/9 zeros at least"
        return chosen, f"rule 2: punched, {cause}; {why}"
    return chosen, f"rule 3: {'punched blocks' if site.kernel else 'blocks'}; {why}"
