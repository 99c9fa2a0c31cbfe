"""Count what the server does, in the text format that Prometheus reads. Nothing of a user's is in it."""

import re
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """Counts requests by their route and status, and how long they took. One thread, the server's, writes."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0
        self._started = time.time()

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests[route, status] += 1
        self._seconds += seconds
        for bound in _BOUNDS:
            if seconds <= bound:
                self._buckets[bound] += 1

    def text(self, gauges: Mapping[str, float]) -> str:
        """Return all figures, with those that are measured now."""
        lines = ["# TYPE clipita_requests_total counter"]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'clipita_requests_total{{route="{route}",status="{status}"}} {count}')
        total = sum(self._requests.values())
        lines.append("# TYPE clipita_request_seconds histogram")
        lines += [f'clipita_request_seconds_bucket{{le="{bound:g}"}} {self._buckets[bound]}' for bound in _BOUNDS]
        lines += [f'clipita_request_seconds_bucket{{le="+Inf"}} {total}', f"clipita_request_seconds_count {total}"]
        lines.append(f"clipita_request_seconds_sum {self._seconds:.6f}")
        now = {"clipita_start_time_seconds": self._started, "process_resident_memory_bytes": float(resident_bytes())}
        for name, value in {**now, **gauges}.items():
            lines += [f"# TYPE {name.partition('{')[0]} gauge", f"{name} {value:.15g}"]
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """Return the memory of this process that is in use, 0 where the system does not say."""
    try:
        found = re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
