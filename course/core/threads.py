"""How torch's threads wait for each other on a processor; torch reads it once, when it is imported."""

import os
import time
from pathlib import Path

SPINS = "10000"  # turns of a loop, about 0.1 ms


def waiting() -> dict[str, str]:
    """What a command that computes for a short time sets in its environment before it imports torch.

    Between two operations a thread waits for the next one. To go to sleep and to be woken takes longer than many an
    operation of a small model, so that spinning, which is looking again and again, makes it about 1.5 times as fast.
    But where another process wants the same core, a spinning thread keeps from it, and from the other threads, what
    they wait for: then two threads are slower than one. So they spin if all cores are free, for a moment, and sleep
    otherwise. They also sleep in commands that compute for hours: sooner or later another process wants a core.

    Returns:
        Nothing if OMP_WAIT_POLICY or GOMP_SPINCOUNT is set already. The second is read by the OpenMP library of GCC
        only, which is the one that torch has on Linux; elsewhere threads sleep.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return {}
    return {"OMP_WAIT_POLICY": "PASSIVE"} | ({"GOMP_SPINCOUNT": SPINS} if cores_are_free() else {})


def cores_are_free(processes: Path = Path("/proc/loadavg"), limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> bool:
    """Whether as many cores are free as torch will have threads, in most of five looks within 20 ms.

    Args:
        processes: Linux's file with the load; its fourth field, "3/162", says how many threads run, this one included.
        limit: the file with the processor time that a container may have, "max 100000" or "150000 100000".

    Returns:
        False also where there is no such file.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        threads = int(os.environ["OMP_NUM_THREADS"])
    except (KeyError, ValueError):
        threads = cores
    try:
        if limit.exists():
            quota, period = limit.read_text().split()
            cores = cores if quota == "max" else min(cores, int(quota) / int(period))
        running = []
        for _ in range(5):
            running.append(int(processes.read_text().split()[3].split("/")[0]) - 1)
            time.sleep(0.004)
    except (OSError, ValueError, IndexError):
        return False
    return sorted(running)[2] + threads <= cores
