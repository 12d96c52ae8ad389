"""What every test shares: the engine on the path, few threads, and the evaluation images where they exist."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

# Tests compare milliseconds-sized work; thread pools cost more than they bring and starve neighbors. Set before torch.
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Idle threads must sleep: on a busy machine spinning ones take the time of those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if str(REPOSITORY / "SAMConvexRegistration") not in sys.path:
    sys.path.insert(0, str(REPOSITORY / "SAMConvexRegistration"))

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Every test draws the same numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real evaluation images: SAMCONVEX_DATA, or ``../shared/data`` beside the repository."""
    folder = Path(os.environ.get("SAMCONVEX_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "cases.csv").is_file():
        pytest.skip(f"the evaluation images are not at {folder} (set SAMCONVEX_DATA)")
    return folder
