"""Rules that name layers: exact names, or `re:` and a pattern for `re.search`. A rule that hits
nothing is an error.
"""

import difflib
import re
from collections.abc import Iterable, Sequence

from prunus.errors import RuleError

PREFIX = "re:"


def matches(rule: str, names: Iterable[str]) -> bool:
    """Does `rule` match one of the names by which a layer goes?

    Raises RuleError: when it isn't text, or its pattern isn't a valid one.
    """
    if not isinstance(rule, str):
        raise RuleError(f"rule {rule!r}: expected a name, or {PREFIX} and a pattern")
    if not rule.startswith(PREFIX):
        return rule in names
    try:
        pattern = re.compile(rule.removeprefix(PREFIX))
    except re.error as error:
        raise RuleError(f"rule {rule!r}: not a valid pattern: {error}") from error
    return any(pattern.search(name) for name in names)


def select(rules: Sequence[str], layers: Sequence[Sequence[str]]) -> list[bool]:
    """For each layer, given by its names, whether any of the rules matches it.

    Raises RuleError: when a rule matches no layer; names the nearest ones.
    """
    rules = (rules,) if isinstance(rules, str) else tuple(rules)
    hits = [[matches(rule, names) for names in layers] for rule in rules]
    for rule, hit in zip(rules, hits, strict=True):
        if not any(hit):
            raise RuleError(_unmatched(rule, [name for names in layers for name in names if name]))
    return [any(hit[index] for hit in hits) for index in range(len(layers))]


def _unmatched(rule: str, known: list[str]) -> str:
    near = difflib.get_close_matches(rule.removeprefix(PREFIX), known, n=3, cutoff=0.5)
    if not known:
        return f"rule {rule!r} matches no layer: there are none"
    unique = list(dict.fromkeys(near or known))
    listed = ", ".join(unique[:3]) + ("" if near or len(unique) <= 3 else ", ...")
    return f"rule {rule!r} matches no layer; {'did you mean' if near else 'layers are'} {listed}"
