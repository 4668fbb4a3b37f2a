"""Every kernel test runs on every runner; with --sanitize, on the sanitized program only."""

import pytest

from tests.kernels.runners import Runner, runners, sanitized


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "runner" not in metafunc.fixturenames:
        return
    if metafunc.config.getoption("--sanitize"):
        only = sanitized()
        chosen = [only] if only else []
        if not chosen:
            print("sanitizers skipped: no clang or gcc on this machine")
    else:
        chosen = runners()
        if not any("aarch64" in r.name for r in chosen):
            chosen.append(None)  # type: ignore[arg-type]
    metafunc.parametrize("runner", chosen, ids=lambda r: r.name if r else "aarch64-neon", indirect=True)


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Runner:
    if request.param is None:
        pytest.skip("no qemu-aarch64 on this machine: apt install qemu-user-static runs the NEON kernels")
    return request.param  # type: ignore[no-any-return]
