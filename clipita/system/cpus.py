"""Count the CPUs that this process may use: those that it is pinned to, within the quota of its container."""

import math
import os
from pathlib import Path


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the number of CPUs by affinity and cgroup quota, at least 1.

    A quota of 1.5 CPUs counts as 2, as half a CPU would otherwise be idle.

    Args:
        root: The root of the file system, for tests.
    """
    # Python does not tell the affinity on macOS and Windows.
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(pinned, _quota(root))))


def _quota(root: Path) -> float:
    """Return how many CPUs the cgroups of this process allow, infinity if they set no limit.

    Any level above may have a lower limit, so all are read. In a container the path in /proc is that of the host and
    often does not exist; the container's own limit is then found at the top.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    quota = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            top, read = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        below = Path(path.lstrip("/"))
        for level in (below, *below.parents):
            quota = min(quota, read(top / level))
    return quota


def _quota_v2(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota <= 0 else quota / period  # -1 means no limit
