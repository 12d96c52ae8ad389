"""All tests of commissioning one after the other, and the document of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from ..anatomy.known import KNOWN
from ..device import chosen_device, device_name
from ..progress import Progress
from ..report.environment import environment, utc_now
from ..version import __version__
from ..weights import registry
from .cases import CASES, QUICK_SPACING_MM, SPACING_MM, Anatomy, Case
from .judge import LIMITS, Limits, Register, judged


def chosen_cases(quick: bool) -> list[Case]:
    """All, or those of the short run."""
    return [case for case in CASES if case.quick or not quick]


def commission(
    register: Register,
    *,
    quick: bool = False,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress,
    anatomy: Anatomy | None = None,
    cases: Sequence[Case] | None = None,
    limits: Limits = LIMITS,
) -> dict[str, Any]:
    """Run the tests and return the document of ``commission.json``.

    Args:
        register: :func:`samconvex.register`, or what a test puts in its place.
        quick: fewer tests on coarser images.
        anatomy, cases: other images and tests than those of ``quick``.

    Raises:
        InputError: no such device. ResourceError: memory, device. Cancelled: by ``progress``.
    """
    began = time.perf_counter()
    date, machine = utc_now(), device_name(chosen_device(device))
    weights = _weights()
    progress("draw", 0.0)
    anatomy = anatomy or Anatomy.drawn(QUICK_SPACING_MM if quick else SPACING_MM)
    progress("draw", 1.0)
    tests = []
    with _nothing_remembered():
        for case in cases if cases is not None else chosen_cases(quick):
            progress(case.name, 0.0)
            tests.append(judged(case, case.make(anatomy), register, progress, limits, device=device, threads=threads))
            progress(case.name, 1.0)
    changed = [name for name, entry in weights.items() if entry["state"] != "ok"]
    passed = all(test["passed"] for test in tests) and not changed
    return {
        "date": date,
        "version": __version__,
        "verdict": "passed" if passed else "failed",
        "passed": passed,
        "quick": quick,
        "device": machine,
        "threads": torch.get_num_threads(),
        "environment": environment(),
        "weights": weights,
        "voxel_mm": list(anatomy.ct.grid.spacing),
        "limits": asdict(limits),
        "tests": tests,
        "failures": [f"{test['title']}: {text}" for test in tests for text in test["failures"]]
        + [f"The weights {name} are {weights[name]['state']}; install them again." for name in changed],
        "seconds": time.perf_counter() - began,
    }


@contextmanager
def _nothing_remembered() -> Iterator[None]:
    """Embeddings that an earlier run left in memory or on disk would be judged instead of this installation."""
    before = os.environ.get("SAMCONVEX_NO_DISK_CACHE")
    KNOWN.clear()
    os.environ["SAMCONVEX_NO_DISK_CACHE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SAMCONVEX_NO_DISK_CACHE"]
        else:
            os.environ["SAMCONVEX_NO_DISK_CACHE"] = before


def _weights() -> dict[str, dict[str, str]]:
    """Every known network's checksum, and whether its file still has it."""
    return {entry.name: {"sha256": entry.sha256, "state": state} for entry, state in registry.verify()}
