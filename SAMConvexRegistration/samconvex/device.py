"""Where it computes: devices by name, and what is done when the memory of one runs out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch

from .errors import InputError, ResourceError

T = TypeVar("T")


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """True where the processor multiplies bfloat16 in hardware; emulation would be slower than float32."""
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    if any(checks):
        return any(bool(check()) for check in checks if check is not None)
    try:  # torch before 2.4 cannot tell
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return " avx512_bf16" in flags or " amx_bf16" in flags


def chosen_device(name: str) -> torch.device:
    """The device called "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: no such name. ResourceError: this computer has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"There is no device {name!r}; use auto, cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"Device {name!r} is not supported; use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(f"Device {name!r} was not found on this computer; use --device cpu.")
    return device


@contextlib.contextmanager
def computing(threads: int | None = None, reproducible: bool = False) -> Iterator[None]:
    """While inside: so many CPU threads; and, where ``reproducible``, the same bits whatever number was asked for.

    The engine's own sums do not depend on threads (see :mod:`samconvex.space.totals`), but what torch and its libraries
    do inside promises nothing: a reproducible computation has one thread, in torch as in SimpleITK, and deterministic
    algorithms wherever torch has them. On a GPU some steps of the refinement "adam" have none; the bits may then differ
    from run to run.

    A number of threads that was asked for stays set; everything else is as before afterwards.
    """
    import SimpleITK as sitk

    if threads is not None:
        torch.set_num_threads(max(1, threads))
    if not reproducible:
        yield
        return
    asked = torch.get_num_threads()
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, workers = torch.backends.cudnn.benchmark, sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    # cuBLAS reads this when it first starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(asked)
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(workers)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def ran_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which torch, numpy and Python say that memory did not suffice, on any device."""
    text = str(error)
    said = "out of memory" in text or "allocate memory" in text or "not enough memory" in text
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or (isinstance(error, RuntimeError) and said)


def or_on_cpu(work: Callable[[torch.device], T], device: torch.device, warnings: list[str]) -> tuple[T, torch.device]:
    """What ``work`` gives, done again on the CPU where the memory of the GPU does not suffice; and the device of it."""
    try:
        return work(device), device
    except RuntimeError as error:
        if device.type != "cuda" or not ran_out_of_memory(error):
            raise
    # Outside the except clause: the error holds the frames, and they hold the tensors.
    torch.cuda.empty_cache()
    warnings.append("The memory of the GPU did not suffice; the CPU was used instead.")
    return work(torch.device("cpu")), torch.device("cpu")
