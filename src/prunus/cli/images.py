"""What --mean and --std say about images."""

import typer

from prunus.pruning.images import Scaling


def parse_scaling(mean: str, std: str, bgr: bool) -> Scaling:
    """Of the texts of --mean and --std: "127" or "123.7,116.8,103.9".

    Raises BadParameter: not 1 or 3 numbers, or a std of 0.
    """
    return Scaling(_numbers("--mean", mean), _numbers("--std", std), bgr)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r}: expected numbers, as 127 or 1,2,3") from error
    if len(numbers) not in (1, 3) or (option == "--std" and 0 in numbers):
        raise typer.BadParameter(f"{option} {text!r}: expected 1 or 3 numbers, for --std not 0")
    return numbers
