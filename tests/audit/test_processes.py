"""Two processes meta-train one optimiser: both end with the same weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_processes import ROOT, launch

SCRIPT = """
import sys
from accelerate import PartialState
from safetensors.torch import save_file
from prunus.audit.meta import Ground, MetaPlan, meta_train
from prunus.audit.victims import of_module
from tests.audit.toy import images, trained

ground = Ground(images(200, 1), (of_module(trained(steps=20), (1, 8, 8)),), (0.1, 0.25))
made = meta_train([ground], MetaPlan(rounds=4, tasks=2, classes=(2,), shots=(2,), steps=4, cut=2))
save_file(made.state_dict(), sys.argv[1] + f"/rank{PartialState().process_index}.safetensors")
"""


@pytest.mark.slow
def test_two_processes_agree(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(SCRIPT)
    done = launch(2, [str(tmp_path / "two.py"), str(tmp_path)], ROOT)
    assert done.returncode == 0, done.stderr
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
