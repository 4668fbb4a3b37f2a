"""Schemes: the shapes in which zeros come, and their text form.

A scheme is a name and up to two numbers. The text form is the same everywhere: `unstructured`,
`2:4`, `filter`, `channel`, `pattern:4`, `punched:8x4`, `block-row:8x64`, `block-column:8x64`,
`bcr:8x64`.
"""

import difflib
import re
from dataclasses import dataclass
from typing import final

from prunus.errors import SchemeError

# name -> an example of its text form; the numbers after the colon are the block.
# "n:m" has no name in its text.
FORMS: dict[str, str] = {
    "filter": "filter",
    "channel": "channel",
    "block-row": "block-row:8x64",
    "block-column": "block-column:8x64",
    "punched": "punched:8x4",
    "bcr": "bcr:8x64",
    "n:m": "2:4",
    "pattern": "pattern:4",
    "unstructured": "unstructured",
}


@final
@dataclass(frozen=True)
class Scheme:
    """A shape of zeros. `str` gives its text form, `parse` reads it.

    name: a key of FORMS. block: rows x columns of block-row, block-column and bcr; filters x
    channels of punched; (n, m) of n:m; (kept positions,) of pattern; else empty.
    Raises SchemeError: unknown name, or numbers that the name doesn't take.
    """

    name: str
    block: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in FORMS:
            raise SchemeError(f"unknown scheme {self.name!r}: expected one of {', '.join(FORMS.values())}")
        n_numbers = len(re.findall(r"\d+", FORMS[self.name]))
        if len(self.block) != n_numbers or any(number < 1 for number in self.block):
            expected = f"{n_numbers} positive numbers" if n_numbers else "no numbers"
            raise SchemeError(f"scheme {self.name} with {self.block}: expected {expected}, as in {FORMS[self.name]}")
        if self.name == "n:m" and self.block[0] >= self.block[1]:
            raise SchemeError(f"scheme {self}: expected fewer kept than there are, as in 2:4")
        if self.name == "pattern" and self.block[0] > 8:
            raise SchemeError(f"scheme {self}: expected 1 to 8 kept of the 9 weights, as in pattern:4")

    def __str__(self) -> str:
        if self.name == "n:m":
            return ":".join(map(str, self.block))
        return self.name + (":" + "x".join(map(str, self.block)) if self.block else "")


def parse(text: "str | Scheme") -> Scheme:
    """The Scheme of a text form such as "bcr:8x64"; a Scheme is returned as it is.

    Raises SchemeError: when it isn't one; says what is accepted, and the nearest scheme.
    """
    if isinstance(text, Scheme):
        return text
    if not isinstance(text, str):
        raise SchemeError(f"scheme {text!r}: expected a text such as bcr:8x64")
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        return Scheme("n:m", (int(match[1]), int(match[2])))
    name, colon, numbers = text.partition(":")
    if name not in FORMS or name == "n:m":
        raise SchemeError(_unknown(text, name))
    if not colon:
        return Scheme(name)
    if not re.fullmatch(r"\d+(x\d+)*", numbers):
        raise SchemeError(f"scheme {text!r}: {numbers!r} after the colon, expected {FORMS[name]}")
    return Scheme(name, tuple(int(number) for number in numbers.split("x")))


def _unknown(text: str, name: str) -> str:
    words = [form.partition(":")[0] for form in FORMS.values()]
    near = difflib.get_close_matches(name.strip().lower().replace("_", "-"), words, n=1)
    hint = f"; did you mean {next(f for f in FORMS.values() if f.startswith(near[0]))}?" if near else ""
    return f"unknown scheme {text!r}: expected one of {', '.join(FORMS.values())}{hint}"
