"""reproducible=True: the same bits for any number of threads, and whatever memory happens to be free."""

from __future__ import annotations

from dataclasses import replace

import pytest
import samconvex as sc
import SimpleITK as sitk
import torch
from engine.phantom_fixtures import QUICK
from samconvex.registration import tiers
from samconvex.registration.register import RegistrationResult
from samconvex.settings.registration import AdamSettings
from samconvex.space.field import DisplacementField
from samconvex.synthetic.phantom import make_phantom

SETTINGS = replace(QUICK, refine="adam", adam=AdamSettings(spacing=12.0, iterations=3))
# A computer that has next to no memory free.
_LITTLE_GIB = 0.01


@pytest.fixture(scope="module")
def pair():
    return tuple(make_phantom(seed, 12.0, (30, 25, 20)).ct for seed in (1, 2))


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def bits(result: RegistrationResult) -> tuple[bytes, ...]:
    fields = [part for part in result.fixed_to_moving.parts if isinstance(part, DisplacementField)]
    return tuple(field.tensor.numpy().tobytes() for field in fields)


def test_any_number_of_threads_gives_the_same_bits(pair):
    used = set()

    def watch(stage: str, fraction: float, message: str = "") -> None:
        used.add((torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()))

    results = [
        sc.register(*pair, preset=SETTINGS, threads=threads, reproducible=True, device="cpu", progress=watch)
        for threads in (1, 2)
    ]
    assert used == {(1, 1)}
    assert len({bits(result) for result in results}) == 1
    assert len(bits(results[0])) == 1
    # What was switched is as it was.
    assert torch.get_num_threads() == 2 and not torch.are_deterministic_algorithms_enabled()
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() >= 1


def test_free_memory_does_not_choose_the_settings(monkeypatch: pytest.MonkeyPatch):
    pair = tuple(make_phantom(seed, 12.0, (16, 14, 12)).ct for seed in (1, 2))
    monkeypatch.setattr(tiers, "available_memory_gib", lambda: _LITTLE_GIB)
    monkeypatch.setattr(tiers, "current_memory_mib", lambda: 0.0)
    settings = replace(SETTINGS, refine="none")
    assert sc.register(*pair, preset=settings).report["tier"] != "full"
    assert sc.register(*pair, preset=settings, reproducible=True).report["tier"] == "full"
