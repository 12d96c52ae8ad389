"""Where memory is short the next smaller settings are taken and said; only what nothing fits is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import samconvex as sc
import torch
from engine.phantom_fixtures import QUICK
from samconvex import memory
from samconvex.device import or_on_cpu
from samconvex.errors import ResourceError
from samconvex.registration import prepare, solve, tiers
from samconvex.registration.forecast import forecast
from samconvex.settings.presets import PRESETS
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import Phantom

LARGE = Volume(torch.zeros(1, 1, 300, 1, 1).expand(1, 1, 300, 400, 400), Grid((400, 400, 300), (1.0, 1.0, 1.2)))


def needs(name: str, preset: str = "ct-lung-breathing") -> float:
    return forecast(tiers.tier(PRESETS[preset], name), LARGE.grid, LARGE.grid).memory_gib


@pytest.mark.parametrize("preset", PRESETS)
def test_every_tier_needs_no_more_than_the_one_before(preset: str) -> None:
    costs = [needs(name, preset) for name in tiers.TIERS]
    assert costs == sorted(costs, reverse=True)
    assert tiers.tier(PRESETS[preset], "full") == PRESETS[preset]


def test_the_largest_tier_that_fits_is_taken_and_named() -> None:
    settings = PRESETS["ct-lung-breathing"]
    full, half, fast = (needs(name) for name in tiers.TIERS)
    assert full > half > fast
    assert tiers.fitting(settings, LARGE, LARGE, full + 0.01) == (settings, "full", None)
    for name, limit in (("half", half + 0.001), ("fast", fast + 0.001)):
        taken, found, sentence = tiers.fitting(settings, LARGE, LARGE, limit)
        assert found == name and taken == tiers.tier(settings, name)
        assert f"tier '{name}' was taken" in (sentence or "") and f"{full:.1f} GiB" in (sentence or "")
    with pytest.raises(ResourceError, match="of the smallest settings"):
        tiers.fitting(settings, LARGE, LARGE, fast - 0.01)


def test_without_a_limit_free_memory_decides_and_only_the_machine_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PRESETS["ct-lung-breathing"]
    monkeypatch.setattr(tiers, "current_memory_mib", lambda: 0.0)
    monkeypatch.setattr(tiers, "available_memory_gib", lambda: needs("half") + 0.001)
    assert tiers.fitting(settings, LARGE, LARGE)[1] == "half"
    monkeypatch.setattr(tiers, "available_memory_gib", lambda: 0.1)
    monkeypatch.setattr(tiers, "machine_memory_gib", lambda: 64.0)
    assert tiers.fitting(settings, LARGE, LARGE)[1] == "fast"
    monkeypatch.setattr(tiers, "machine_memory_gib", lambda: 0.2)
    with pytest.raises(ResourceError):
        tiers.fitting(settings, LARGE, LARGE)


def test_the_report_names_the_tier(phantom: Phantom) -> None:
    settings = replace(QUICK, working_spacing=1.0)
    limit = forecast(tiers.tier(settings, "half"), phantom.ct.grid, phantom.ct.grid).memory_gib + 0.001
    assert forecast(settings, phantom.ct.grid, phantom.ct.grid).memory_gib > limit
    result = sc.register(phantom.ct, phantom.ct, preset=settings, max_memory_gib=limit)
    assert result.report["tier"] == "half"
    assert any("tier 'half' was taken" in warning for warning in result.report["warnings"])
    assert result.report["settings"]["working_spacing"] == 1.5


def test_a_gpu_without_memory_falls_back_to_the_cpu_and_finishes(
    phantom: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to(volume: Volume, device: torch.device) -> Volume:
        if device.type == "cuda":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return volume

    monkeypatch.setattr(prepare, "chosen_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(solve, "on_device", to)
    result = sc.register(phantom.ct, phantom.ct, preset=QUICK)
    assert result.report["device"] == "cpu"
    assert result.report["warnings"] == ["The memory of the GPU did not suffice; the CPU was used instead."]
    with pytest.raises(RuntimeError, match="another"):
        or_on_cpu(_broken, torch.device("cuda"), [])


def _broken(device: torch.device) -> None:
    raise RuntimeError("another error")


def test_free_memory_is_what_the_system_says() -> None:
    assert 0.05 < memory.available_memory_gib() <= memory.machine_memory_gib()
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:                 10.\n"
        "Pages active:              500.\nPages inactive:              20.\nPages speculative:            3.\n"
        "Pages wired down:           90.\nPages purgeable:              2.\n"
    )
    assert memory.pages_of_vm_stat(text) == 35 * 16384
