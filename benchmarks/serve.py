"""Measure `clipita serve` beside the library called directly: 1, 8 and 64 clients, and memory over many requests.

    python -m benchmarks.serve
    python -m benchmarks.serve --requests 50000

Clients are connections of another process, which are kept, and send Immich's requests, of JPEGs of 500 x 375 and of
texts. They share the machine's CPUs with the server.
"""

import argparse
import contextlib
import json
import os
import re
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

import clipita
from benchmarks.tools.measure import Figures, interleaved, process, publish
from benchmarks.tools.photographs import jpegs
from benchmarks.tools.server import serving

CLIENTS = (1, 8, 64)
PHOTOGRAPHS = 64
SECONDS = 20.0  # of each number of clients
WORDS = ("gatto", "cane", "mare", "treno", "pizza", "montagna", "bambino", "fiore")

_HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=bordo\r\n"
    b"Content-Length: %d\r\n\r\n"
)
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n(?s:.*?)\r\n\r\n", re.IGNORECASE)

# The clients, in a process of their own: address, kind, clients, seconds or requests -> milliseconds, one a line.
_DRIVER = """
import sys
from benchmarks.serve import drive
drive(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
"""


class Run(NamedTuple):
    """Holds what one number of clients measured.

    Attributes:
        per_second: Answers.
        p50: Milliseconds to an answer, of the median.
        p99: Of the 99th of 100.
        cpu: Milliseconds of CPU that the server took for an answer.
    """

    per_second: float
    p50: float
    p99: float
    cpu: float


def measure(requests: int) -> Figures:
    """Return all figures."""
    with serving() as (address, pid):
        for kind in ("images", "texts"):
            asked(address, pid, kind, 8, 3.0)  # loads the towers
        runs = {
            kind: {str(clients): asked(address, pid, kind, clients, SECONDS)._asdict() for clients in CLIENTS}
            for kind in ("images", "texts")
        }
        memory = [resident(pid)]
        for _ in range(5):
            asked(address, pid, "images", 16, 0.0, requests // 5)
            memory.append(resident(pid))
    return {"clients": runs, "direct": direct(), "requests": requests, "resident_megabytes": memory}


def direct() -> dict[str, list[float]]:
    """Return how many photographs and texts a second the library embeds in batches, and the CPU of each in ms."""
    model = clipita.load()
    photographs, texts = jpegs(500, 375, PHOTOGRAPHS), sentences()
    cases: dict[str, tuple[int, Callable[[], object]]] = {
        "images": (4 * PHOTOGRAPHS, lambda: model.encode_image(photographs * 4)),
        "texts": (len(texts), lambda: model.encode_text(texts)),
    }
    timed = interleaved({name: run for name, (_, run) in cases.items()}, rounds=5)
    found: dict[str, list[float]] = {}
    for name, (count, run) in cases.items():
        begun = time.process_time()
        run()
        found[name] = [count / timed[name]["median"], 1000 * (time.process_time() - begun) / count]
    return found


def sentences() -> list[str]:
    """Return different short sentences."""
    return [f"un {first} con un {second} e un {third}" for first in WORDS for second in WORDS for third in WORDS]


def asked(address: str, pid: int, kind: str, clients: int, seconds: float, requests: int = 0) -> Run:
    """Let clients ask for so many seconds, or so many requests."""
    before = _cpu_seconds(pid)
    lines = process(_DRIVER, address, kind, clients, seconds, requests).splitlines()
    wall, taken = float(lines[0]), np.array(lines[1:], float)
    cpu = 1000 * (_cpu_seconds(pid) - before) / len(taken)
    return Run(len(taken) / wall, float(np.percentile(taken, 50)), float(np.percentile(taken, 99)), cpu)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # in user mode and in the system


def drive(address: str, kind: str, clients: int, seconds: float, requests: int) -> None:
    """Ask on many connections, and print the seconds that all of it took and the milliseconds of each answer.

    One thread watches all connections: many would take CPU from the server, which is on the same machine.
    """
    bodies = _images() if kind == "images" else _texts()
    host, _, port = address.partition("://")[2].partition(":")
    taken: list[float] = []
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as watched:
        start = time.perf_counter()
        for number in range(clients):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=120))
            watched.register(connection, selectors.EVENT_READ, _Client(connection, number))
        asking = [key.data for key in watched.get_map().values()]
        for client in asking:
            client.ask(bodies)
        asked = clients
        while len(taken) < asked:
            for key, _ in watched.select():
                client = key.data
                if not client.has_answer():
                    continue
                taken.append(1000 * (time.perf_counter() - client.begun))
                if asked < requests if requests else time.perf_counter() - start < seconds:
                    client.number += clients
                    client.ask(bodies)
                    asked += 1
        print(time.perf_counter() - start)
    print("\n".join(map(str, taken)))


class _Client:
    """Asks on one connection, and reads answers without the work of a real client."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.connection, self.number = connection, number
        self.begun, self._received = 0.0, b""

    def ask(self, bodies: list[bytes]) -> None:
        """Send the next request."""
        self.begun, self._received = time.perf_counter(), b""
        self.connection.sendall(bodies[self.number % len(bodies)])

    def has_answer(self) -> bool:
        """Read what has come, and tell whether the answer is whole."""
        part = self.connection.recv(1 << 16)
        self._received += part
        found = _LENGTH.search(self._received)
        if not part or (found and not self._received.startswith(b"HTTP/1.1 200 ")):
            raise RuntimeError(f"{self._received[:200]!r}")
        return found is not None and len(self._received) >= found.end() + int(found[1])


def _images() -> list[bytes]:
    entries = json.dumps({"clip": {"visual": {"modelName": "clipita-mini"}}}).encode()
    head = b'Content-Disposition: form-data; name="image"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return [_form(entries, head + photograph) for photograph in jpegs(500, 375, PHOTOGRAPHS)]


def _texts() -> list[bytes]:
    entries = json.dumps({"clip": {"textual": {"modelName": "clipita-mini"}}}).encode()
    head = b'Content-Disposition: form-data; name="text"\r\n\r\n'
    return [_form(entries, head + text.encode()) for text in sentences()]


def _form(entries: bytes, other: bytes) -> bytes:
    first = b'Content-Disposition: form-data; name="entries"\r\n\r\n' + entries
    body = b"--bordo\r\n" + first + b"\r\n--bordo\r\n" + other + b"\r\n--bordo--\r\n"
    return (_HEAD % len(body)) + body


def resident(pid: int) -> float:
    """Return the megabytes of a process that are in memory."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1000


def markdown(report: Figures) -> str:
    """Return the tables."""
    lines = [
        "# The server beside the library",
        "",
        "JPEGs of 500 x 375 and texts of nine words, by Immich's protocol; clients and server share the machine. The "
        "share is that of the library called directly with all of them at once; CPU is what the server took.",
        "",
        "| | clients | a second | share | p50 | p99 | CPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, runs in report["clients"].items():
        whole, cpu = report["direct"][kind]
        lines.append(f"| {kind} | library, directly | {whole:.0f} | 1 | | | {cpu:.1f} ms |")
        for clients, run in runs.items():
            share = run["per_second"] / whole
            times = f"{run['p50']:.0f} ms | {run['p99']:.0f} ms | {run['cpu']:.1f} ms"
            lines.append(f"| {kind} | {clients} | {run['per_second']:.0f} | {share:.2f} | {times} |")
    memory = ", ".join(f"{value:.0f}" for value in report["resident_megabytes"])
    lines += [
        "",
        f"Resident memory before, and after each fifth of {report['requests']:,} photographs of 16 clients, is "
        f"{memory} MB.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.pop("CLIPITA_MODEL", None)
    parser = argparse.ArgumentParser(description="Measure the server.")
    parser.add_argument("--requests", type=int, default=5000, help="requests over which memory is watched")
    publish("serve", partial(measure, parser.parse_args().requests), markdown)
