"""Stands for the engine in job tests: prints progress, then ends as its first argument says."""

import json
import signal
import subprocess
import sys
import time


def report(percent, **more):
    line = {"stage": "convex", "fraction": percent / 100, "percent": percent, "memory_mib": 500.0, "seconds_left": 2.0}
    print(json.dumps(line | more), flush=True)


def main(behavior):
    report(10)
    print("a line that is no progress", flush=True)
    if behavior == "done":
        report(60)
        time.sleep(0.15)
        report(40)
        time.sleep(0.15)
        report(100, stage="done")
        return 0
    if behavior == "input":
        print("samconvex noise", file=sys.stderr)
        print(f"{sys.argv[2]} is constant (every voxel is 0); choose an image with content.", file=sys.stderr)
        return 2
    if behavior == "defect":
        print("Traceback (most recent call last):", file=sys.stderr)
        print("ZeroDivisionError: division by zero", file=sys.stderr)
        return 1
    if behavior == "cancelled":
        return 3
    if behavior == "killed":
        signal.raise_signal(signal.SIGKILL)
    if behavior == "slow":
        time.sleep(60)
    if behavior == "tidy":

        def tidy_up(_signal, _frame):
            time.sleep(0.3)
            open(sys.argv[2], "w").close()
            sys.exit(3)

        signal.signal(signal.SIGTERM, tidy_up)
        report(20)
        time.sleep(60)
    if behavior == "stubborn":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(f"child {child.pid}", flush=True)
        report(20)
        time.sleep(60)
    if behavior == "chatty":
        for _count in range(20000):
            print("x" * 100)
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
