"""dask's workers: processes of this machine, or those of a scheduler's address."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ResourceError
from ..memory import available_memory_gib
from .cap import ALLOWED, ENDED

if TYPE_CHECKING:
    from distributed import Client

# Of the free memory, what all workers together may take; the rest is for the scheduler, the system and other programs.
_SHARED = 0.9
_LEAST_GIB = 1.0
_CONNECT_S = 20
MISSING = (
    "Cohorts run on dask, which is not installed; install it with: pip install 'samconvex[cluster]' (or pip install "
    "dask distributed)."
)


@dataclass(frozen=True)
class Plan:
    """Workers of this machine.

    Attributes:
        workers: processes, one job at a time in each.
        threads: of torch in each.
        memory_bytes: what each may hold before it is ended.
        gpus: one number per worker, none on the CPU.
    """

    workers: int
    threads: int
    memory_bytes: int
    gpus: tuple[int, ...] = ()


def check_dask() -> None:
    """Raise InputError, with the way out, where dask.distributed is absent."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise InputError(MISSING) from error


def cores() -> int:
    """Cores that this process may use: those of its container and affinity, not the machine's."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


def planned(
    job_gib: float, asked: int | None, jobs: int, *, cores: int, free_gib: float | None = None, gpus: int = 0
) -> Plan:
    """As many workers as jobs, cores (or GPUs) and memory allow; threads times workers are at most the cores.

    Args:
        job_gib: forecast of the largest job.
        asked: this many workers instead; each then gets its share of the memory, whatever the forecast says.
        jobs: how many there are.
        free_gib: None asks the system.

    Raises:
        InputError: more workers than cores.
    """
    free = _SHARED * (available_memory_gib() if free_gib is None else free_gib)
    if asked is not None and asked > cores:
        raise InputError(f"--workers {asked} are more than the {cores} cores of this machine; give {cores} at most.")
    fitting = max(1, int(free / max(job_gib / ALLOWED, _LEAST_GIB)))
    workers = asked or max(1, min(cores, gpus or cores, fitting, jobs))
    used = tuple(number % gpus for number in range(workers)) if gpus else ()
    return Plan(workers, max(1, cores // workers), int(free / workers * 2**30), used)


@contextlib.contextmanager
def local_client(plan: Plan) -> Iterator[Client]:
    """A client of workers of this machine, which end with it however it ends."""
    import dask
    from distributed import Client, Nanny, Scheduler
    from distributed.deploy.spec import SpecCluster

    threads = {name: plan.threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    threads["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = plan.threads
    settings = {
        # In place of dask's own, which make the allocator give every tensor back to the system at once.
        "distributed.nanny.pre-spawn-environ": threads,
        # Nothing is passed from job to job: dask's own memory is empty, and torch's cannot be spilled.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": ENDED,
        "distributed.worker.profile.enabled": False,
        # A job waits at the scheduler, not at a worker that may be ended.
        "distributed.scheduler.worker-saturation": 1.0,
    }

    def options(number: int) -> dict[str, Any]:
        return {
            "nthreads": 1,
            "memory_limit": plan.memory_bytes,
            "dashboard": False,
            "host": "127.0.0.1",
            "silence_logs": logging.CRITICAL,
            "env": {"CUDA_VISIBLE_DEVICES": str(plan.gpus[number])} if plan.gpus else {},
        }

    with dask.config.set(settings):
        cluster = SpecCluster(
            workers={number: {"cls": Nanny, "options": options(number)} for number in range(plan.workers)},
            scheduler={
                "cls": Scheduler,
                "options": {"dashboard": False, "dashboard_address": ":0", "host": "127.0.0.1", "port": 0},
            },
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster) as client:
            yield client


@contextlib.contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """A client of the scheduler at ``address``; workers may join it at any time.

    Raises:
        ResourceError: nobody answers there.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"No scheduler answers at {address}; start one with 'dask scheduler', or give the address it printed."
        ) from error
    with client:
        yield client
