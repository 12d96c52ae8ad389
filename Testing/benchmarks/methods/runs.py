"""Every (method, pair) as a process of its own; its record is on disk as soon as it ends.

A stop or a crash loses one run at most, and ``resume`` goes on from there.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from samconvex import Grid, read_volume
from samconvex.errors import InputError
from samconvex.settings.presets import PRESETS, get_settings
from samconvex.space.transforms import Transform

from ..data.pairs import REPOSITORY, Case, Pair
from .assess import assess
from .job import ORGANS_FILE, common_start, is_prepared, prepare, prepare_organs
from .peers import METHODS as PEERS
from .peers import WITH_ORGANS

HERE = Path(__file__).resolve().parent
PEERS_ENVIRONMENT = REPOSITORY / ".venv-peers"
REQUIREMENTS = HERE / "requirements-peers.txt"
TIME_LIMIT_S = 3600
TIMES = ("seconds", "cpu_seconds", "process_seconds", "stages")

Launch = Callable[[str, Pair, Path, Path], dict]


def preset_of(method: str, default: str) -> str | None:
    """The preset that one of our method names stands for; None for an unknown name."""
    name = method.removesuffix("-own")
    if name == "samconvex":
        return default
    preset = name.removeprefix("samconvex-")
    return preset if name.startswith("samconvex-") and preset in PRESETS else None


def command_of(method: str, default_preset: str, job: Path, output: Path, threads: int) -> list[str]:
    """The process of one run."""
    if method in PEERS:
        return [str(peers_python()), str(HERE / "peers.py"), method, str(job), str(output), "--threads", str(threads)]
    preset = preset_of(method, default_preset)
    if preset is None:
        raise ValueError(f"unknown method {method!r}")
    own = ["--own"] if method.endswith("-own") else []
    words = ["-m", "benchmarks.methods.ours", preset, str(job), str(output), "--threads", str(threads), *own]
    return [sys.executable, *words]


def run_process(command: list[str], output: Path, threads: int) -> dict:
    """Run; the record holds ``seconds``, ``process_seconds``, ``peak_memory_mib`` and ``version``, or ``failed``."""
    paths = [str(HERE.parents[1]), str(REPOSITORY / "SAMConvexRegistration"), os.environ.get("PYTHONPATH", "")]
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    # An embedding kept from an earlier run would make the next one look faster than it is.
    environment = {**os.environ, **dict.fromkeys(counts, str(threads)), "SAMCONVEX_NO_DISK_CACHE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    for stale in output.glob("*"):
        stale.unlink()
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {TIME_LIMIT_S} s"}
    seconds = time.perf_counter() - begin
    if done.returncode != 0 or not (output / "run.json").exists():
        lines = done.stderr.strip().splitlines() or [""]
        return {"failed": f"exit status {done.returncode}: {lines[-1]}"[:300]}
    return {
        **json.loads((output / "run.json").read_text(encoding="utf-8")),
        "process_seconds": seconds,
        "threads": threads,
    }


def run_all(
    pairs: Sequence[Pair],
    methods: Sequence[str],
    output: Path,
    launch: Launch,
    *,
    resume: bool,
    starts: Path | None = None,
) -> list[dict]:
    """Pair by pair, all methods in turn (so that a change of the machine's mood hits all); returns the records."""
    records = []
    for pair in pairs:
        files = {method: output / "runs" / pair.name / f"{method}.json" for method in ("start", *methods)}
        given = None if starts is None else starts / f"{pair.name}.tfm"
        given = given if given is not None and given.exists() else None
        origin = f"affine {get_settings(pair.preset).affine}" if given is None else "given"
        wanted = [method for method, file in files.items() if not (resume and is_finished(file, origin))]
        if not wanted:
            records += [json.loads(file.read_text(encoding="utf-8")) for file in files.values()]
            continue
        case = pair.load()
        job = output / "work" / pair.name
        if not (resume and is_prepared(job, origin)):
            start = common_start(case, pair.preset) if given is None else Transform.load(given)
            prepare(case, start, job, origin)
            (job / ORGANS_FILE).unlink(missing_ok=True)
        start = Transform.load(job / "start.tfm")
        if not (job / ORGANS_FILE).is_file() and any(method.endswith(WITH_ORGANS) for method in wanted):
            # Where there are none, the methods that need them fail by themselves, and that is a record.
            with contextlib.suppress(InputError):
                prepare_organs(case, start, job)
        grid = read_volume(job / "fixed.nii.gz").grid
        for method, file in files.items():
            if method in wanted:
                record = _measure(method, pair, case, start, grid, job, launch) | {"start": origin}
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(record, indent=1))
                print(_line(record), flush=True)
            records.append(json.loads(file.read_text(encoding="utf-8")))
    return records


def is_finished(file: Path, origin: str) -> bool:
    """A record that is whole, no failure, and from a start of that ``origin``."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "failed" not in record and record.get("start") == origin


def _measure(method: str, pair: Pair, case: Case, start: Transform, grid: Grid, job: Path, launch: Launch) -> dict:
    record: dict = {"pair": pair.name, "group": pair.group, "method": method, "voxels": grid.voxel_count}
    if method == "start":
        return record | assess(case, start, grid)
    output = job / method
    output.mkdir(exist_ok=True)
    record |= launch(method, pair, job, output)
    if "failed" not in record:
        name = "transform.h5" if (output / "transform.h5").exists() else "field.mha"
        found = Transform.load(output / name)
        # On the prepared images a method finds p -> q(p); the start then takes q(p) to the moving image's own space.
        record |= assess(case, found if method.endswith("-own") else start.after(found), grid)
        (output / name).unlink()
    return record


def _line(record: dict) -> str:
    words = [f"{record['pair']:18}{record['method']:24}"]
    if "failed" in record:
        return " ".join([*words, "FAILED:", record["failed"]])
    words += [f"Dice {record['dice_mean']:.3f}"] if "dice_mean" in record else []
    words += [f"TRE {record['tre_mm']['mean']:.2f} mm"] if "tre_mm" in record else []
    words += [f"error {record['known_error_mm']['mean']:.2f} mm"] if "known_error_mm" in record else []
    words += [f"{record['seconds']:.1f} s"] if "seconds" in record else []
    words += [f"{record['peak_memory_mib']:.0f} MiB"] if "peak_memory_mib" in record else []
    return "  ".join(words)


def peers_python() -> Path:
    """The interpreter of the peers' environment."""
    return PEERS_ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def describe_machine() -> str:
    """Processor, cores, memory and system, without names of hosts or users."""
    import torch

    model = platform.processor() or platform.machine()
    memory = ""
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    if meminfo.exists():
        memory = f", {int(meminfo.read_text(encoding='utf-8').split()[1]) / 2**20:.0f} GiB"
    return (
        f"Machine: {model}, {os.cpu_count()} cores{memory}, {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}; no accelerator used."
    )


def create_peers_environment() -> None:
    """Install the peers into ``.venv-peers`` once; again when their requirements changed."""
    stamp = PEERS_ENVIRONMENT / ".ready"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print("Installing the peers into .venv-peers (about 3 GB, minutes) ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(PEERS_ENVIRONMENT)], check=True)
    install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    subprocess.run([str(peers_python()), *install], check=True)
    stamp.write_text(wanted)
