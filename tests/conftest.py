"""Options of the test run."""

from pathlib import Path

import pytest

from prunus.compiler import compile as compiling


@pytest.fixture(autouse=True)
def measured_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Times measured while tests load the machine are kept apart from the user's."""
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "latency.sqlite"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sanitize", action="store_true", help="run kernel tests under the sanitizers")
