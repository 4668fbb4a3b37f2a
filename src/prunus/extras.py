"""Which extra of Prunus brings which package, for messages where one is missing."""

from prunus.errors import MissingExtraError

EXTRAS: dict[str, tuple[str, ...]] = {
    "compile": (
        "onnx", "onnx_ir", "onnxscript", "onnxruntime", "ziglang", "typer", "rich", "pydantic",
        "ruamel",
        "platformdirs", "filelock", "PIL", "google", "scipy",
    ),
    "prune": ("torch", "accelerate", "safetensors", "optuna", "sqlalchemy", "cryptography"),
    "bench": ("openvino", "matplotlib"),
    "peers": ("ncnn", "pnnx", "MNN", "ai_edge_litert", "flatbuffers", "art"),
    "fpga": ("amaranth",),
}  # fmt: skip


def install_command(extra: str) -> str:
    """What to type to install an extra."""
    return f'pip install "prunus[{extra}]"'


def extra_of(package: str) -> str | None:
    """The extra that brings an importable package, given by its top or a dotted name."""
    top = package.partition(".")[0]
    return next((extra for extra, packages in EXTRAS.items() if top in packages), None)


def missing_package(what: str, error: ModuleNotFoundError) -> Exception:
    """The error to raise for `error`, met in `what`: it names the extra to install.

    Returns `error` itself where no extra brings the package: then it is our fault.
    """
    extra = extra_of(error.name or "")
    if extra is None:
        return error
    return MissingExtraError(f"{what} needs the package {error.name}, which is not installed: {install_command(extra)}")
