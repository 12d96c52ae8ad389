"""How much memory this process holds and has held, on every system, without further packages."""

from __future__ import annotations

import sys


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    return _linux_status("VmHWM") or _system_memory(peak=True)


def forget_peak_memory() -> None:
    """From now on the peak is that of what follows, where the system can (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as stream:
            stream.write("5")
    except OSError:
        # The peak then is that of the whole process.
        pass


def current_memory_mib() -> float:
    """Resident memory of this process now, MiB (its peak where the system does not tell)."""
    return _linux_status("VmRSS") or _system_memory(peak=False)


def machine_memory_gib() -> float:
    """Memory that this process may use at most: the machine's, or its container's; GiB."""
    total = _windows_memory_status(0) if sys.platform == "win32" else _posix_total()
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as stream:
            total = min(total, int(stream.read()))
    except (OSError, ValueError):
        # No container, or one without a limit ("max").
        pass
    return total / 2**30


def available_memory_gib() -> float:
    """Memory that could be taken now without swapping, GiB: as the system and the container say, else the machine's."""
    free = machine_memory_gib() * 2**30
    if sys.platform == "win32":
        free = min(free, _windows_memory_status(1))
    elif sys.platform == "darwin":
        free = min(free, _mac_available() or free)
    else:
        free = min(free, _linux_available() or free)
    return min(free, _container_available() or free) / 2**30


def _linux_available() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            line = next(line for line in stream if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _container_available() -> int | None:
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as stream:
            limit = int(stream.read())
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as stream:
            used = int(stream.read())
        with open("/sys/fs/cgroup/memory.stat", encoding="ascii") as stream:
            # File pages that the kernel gives back when asked.
            cached = next(int(line.split()[1]) for line in stream if line.startswith("inactive_file "))
        return max(0, limit - used + cached)
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _mac_available() -> int | None:
    import re
    import subprocess

    try:
        text = subprocess.run(["vm_stat"], capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return pages_of_vm_stat(text) if re.search(r"page size of \d+", text) else None


def pages_of_vm_stat(text: str) -> int:
    """Bytes that macOS's ``vm_stat`` counts as free or at once to be freed."""
    import re

    size = int(re.search(r"page size of (\d+)", text).group(1))  # type: ignore[union-attr]
    counts = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)", text, re.M)
    return size * sum(map(int, counts))


def _posix_total() -> int:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _windows_memory_status(number: int) -> int:
    """The ``number``-th 64-bit field: 0 the total physical memory, 1 the available one."""
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [
            ("dwLength", ctypes.c_uint32),
            ("dwMemoryLoad", ctypes.c_uint32),
            *((f"field{number}", ctypes.c_uint64) for number in range(7)),
        ]

    status = Status()
    status.dwLength = ctypes.sizeof(status)
    ctypes.WinDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(getattr(status, f"field{number}"))


def _linux_status(field: str) -> float | None:
    # Not ru_maxrss: a child process inherits its parent's there.
    try:
        with open("/proc/self/status", encoding="ascii") as stream:
            line = next(line for line in stream if line.startswith(field + ":"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _system_memory(peak: bool) -> float:
    if sys.platform == "win32":
        return _windows_memory(peak)
    import resource

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, others kibibytes.
    return kilobytes / 2**20 if sys.platform == "darwin" else kilobytes / 1024


def _windows_memory(peak: bool) -> float:
    import ctypes
    from ctypes import wintypes

    sizes = (
        "PeakWorkingSetSize WorkingSetSize QuotaPeakPagedPoolUsage QuotaPagedPoolUsage QuotaPeakNonPagedPoolUsage "
        "QuotaNonPagedPoolUsage PagefileUsage PeakPagefileUsage"
    ).split()

    class Counters(ctypes.Structure):
        _fields_ = [
            ("cb", wintypes.DWORD),
            ("PageFaultCount", wintypes.DWORD),
            *((name, ctypes.c_size_t) for name in sizes),
        ]

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    kernel32.GetCurrentProcess.restype = wintypes.HANDLE
    query = kernel32.K32GetProcessMemoryInfo
    query.argtypes = [wintypes.HANDLE, ctypes.POINTER(Counters), wintypes.DWORD]
    if not query(kernel32.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
        return 0.0
    return (counters.PeakWorkingSetSize if peak else counters.WorkingSetSize) / 2**20
