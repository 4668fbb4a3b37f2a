"""What importing costs, and what a missing package says. Each in a process of its own."""

import subprocess
import sys
import textwrap

import pytest

import prunus

HEAVY = ("torch", "onnx", "onnxruntime", "onnx_ir", "openvino", "typer", "rich", "pydantic", "PIL", "filelock")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)


BLOCK = """
    import sys
    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] not in {blocked}:
                return None
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
    sys.meta_path.insert(0, Block())
"""


def without(packages: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` where `packages` can't be imported."""
    return python(textwrap.dedent(BLOCK).replace("{blocked}", repr(packages)) + textwrap.dedent(code))


@pytest.mark.parametrize("names", ["prunus", "prunus, prunus.runtime.session; prunus.load; prunus.Session"])
def test_import_is_light(names: str) -> None:
    done = python(f"import sys, {names}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "prunus" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("name", prunus.__all__)
def test_public_names(name: str) -> None:
    assert name in dir(prunus)
    assert getattr(prunus, name) is getattr(prunus, name)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"prunus.*quince"):
        prunus.quince  # noqa: B018


@pytest.mark.parametrize("name", ["compile", "prune_onnx"])
def test_missing_extra_in_python(name: str) -> None:
    done = without(HEAVY, f"import prunus\ntry: prunus.{name}\nexcept ImportError as e: print(type(e).__name__, e)")
    assert done.stdout.startswith(f"MissingExtraError prunus.{name} "), done.stderr
    assert 'pip install "prunus[compile]"' in done.stdout


@pytest.mark.parametrize("verb", ["compile", "run", "doctor", "benchmark"])
def test_missing_extra_on_the_command_line(verb: str) -> None:
    done = without(HEAVY, f"from prunus.cli.main import main; main([{verb!r}, 'model.onnx'])")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"prunus {verb}" in done.stderr
    assert 'pip install "prunus[compile]"' in done.stderr


def test_demo_without_torch_names_its_extra() -> None:
    done = without(("torch",), "from prunus.cli.main import main; main(['demo', '-q'])")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert 'pip install "prunus[prune]"' in done.stderr


def test_version_needs_nothing() -> None:
    done = without(HEAVY, "from prunus.cli.main import main; main(['--version'])")
    assert (done.returncode, done.stdout) == (0, f"prunus {prunus.__version__}\n")
