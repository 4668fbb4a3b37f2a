"""Errors a caller can cause. Everything else is an assertion, that is, our fault.

The command line prints the message of a PrunusError as one line and exits with 2.
"""


class PrunusError(Exception):
    """Base of all errors whose cause is outside Prunus: bad input, bad usage, a full disk."""


class ModelError(PrunusError):
    """An ONNX model that can't be read, or whose contents contradict each other (file, node, found, expected)."""


class UnsupportedError(PrunusError):
    """A valid model that asks for something Prunus doesn't compile: names operator and node."""


class SchemeError(PrunusError, ValueError):
    """A scheme string or sparsity that isn't one: what was found, what would be accepted."""


class FeedError(PrunusError, ValueError):
    """Inputs of a run that don't fit the network: name, dtype or shape."""


class CalibrationError(PrunusError, ValueError):
    """Calibration data that is missing, or from which no ranges can be had: which batch or value, and why."""


class ArtefactError(PrunusError):
    """A .prunus file that is truncated, altered, too new, or for an ISA that this CPU lacks."""


class TargetError(PrunusError, ValueError):
    """A target, precision or thread count that doesn't exist or isn't available here."""


class ToolchainError(PrunusError):
    """The C compiler is missing or failed: command and first lines of what it said."""


class OutputError(PrunusError, OSError):
    """A file that can't be written: path and the system's reason. Nothing half-written stays."""


class MissingExtraError(PrunusError, ImportError):
    """A part of Prunus whose packages aren't installed: says which extra brings them."""


class PrunusWarning(UserWarning):
    """Something that the caller should know and that stops nothing: what was found, and what is done about it."""


class ScheduleError(PrunusError, ValueError):
    """A schedule that can't be read, or asks for what a layer or target can't do: file, layer, key."""


class RuleError(PrunusError, ValueError):
    """A name or `re:` pattern of a recipe or `ignore` that matches no layer, or isn't a valid pattern."""


class RecipeError(PrunusError, ValueError):
    """A recipe or plan that can't be read, or a key of it that doesn't exist or can't have that value: file, key."""


class CheckpointError(PrunusError):
    """A checkpoint that can't be read, or is of another model or recipe: file, found, expected."""


class TrainingError(PrunusError):
    """Training that can't go on: a loss that isn't finite, data or a model that can't be had."""


class ExportError(PrunusError):
    """A network that can't be written as ONNX, or whose file answers otherwise than it does."""


class ShrinkError(PrunusError, ValueError):
    """Channels that can't be removed as asked: which layer or output, what was found and expected."""


class BudgetError(PrunusError, ValueError):
    """A latency, speed or sparsity that no choice of schemes reaches: what is reachable, and what bounds it."""


class DisagreementError(PrunusError):
    """Outputs of engines differ: the answer is no, not a bad input."""


class StorageError(PrunusError, OSError):
    """A storage of trials that can't be reached or used: its URL without the password, and why."""


class FingerprintError(PrunusError, ValueError):
    """A fingerprint or commitment that is altered, unreadable or too small for a verdict: file, field, why."""


class SuspectError(PrunusError):
    """A suspect that can't be asked: it takes other inputs, tells other classes apart, or doesn't answer."""


class AuditError(PrunusError, ValueError):
    """An audit that can't be done as asked: data, labels, shots or a victim, what was found and expected."""
