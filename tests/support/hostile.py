"""Files that mean harm: how each is tried, alone in a process that may not take much memory, and what came of it.

`python -m support.hostile`, in the folder tests,
prints the table. The cases are in `hostile_weights` and `hostile_texts`.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

# Read-only maps of the file do not count into RLIMIT_DATA as they do into RLIMIT_AS; whatever is allocated does.
MAX_DATA_BYTES = 768 << 20
MAX_GROWTH_MIB = 160
MAX_SECONDS = 20


@dataclass(frozen=True)
class Case:
    """A folder that `write` fills, and what the error must say when `read` reads it."""

    write: Callable[[Path], None]
    read: Callable[[Path], object]
    message: str


@dataclass(frozen=True)
class Outcome:
    """The class and text of what was raised ("none" if nothing was), and what it took."""

    raised: str
    text: str
    growth_mib: int
    seconds: float
    left_behind: list[str]


def all_cases() -> dict[str, Case]:
    from support.hostile_texts import CASES as TEXTS
    from support.hostile_weights import CASES as WEIGHTS

    return WEIGHTS | TEXTS


def run(name: str, case: Case) -> Outcome:
    """Try one case in a fork of this process, which must have imported what it needs and hold little."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "checkpoint"
        folder.mkdir()
        os.environ["VICTIM"] = str(Path(root) / "victim")
        case.write(folder)
        receiving, sending = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receiving)
            os.write(sending, json.dumps(_attempt(case, folder)).encode())
            os._exit(0)
        os.close(sending)
        with os.fdopen(receiving, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        left_behind = sorted(path.name for path in Path(root).iterdir() if path.name != "checkpoint")
        if not answer:
            return Outcome("dead", f"the process ended with status {status}", 0, 0.0, left_behind)
        raised, text, growth, seconds = json.loads(answer)
        return Outcome(raised, text.replace(root, ""), growth, seconds, left_behind)


def _attempt(case: Case, folder: Path) -> tuple[str, str, int, float]:
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_DATA_BYTES, MAX_DATA_BYTES))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where Rust reports its panics
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, start = _peak_mib(), time.monotonic()
    try:
        case.read(folder)
        raised, text = "none", ""
    except BaseException as error:
        raised, text = type(error).__name__, str(error)
    return raised, text, _peak_mib() - before, time.monotonic() - start


def _peak_mib() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def main() -> None:
    outcomes = {name: asdict(run(name, case)) for name, case in all_cases().items()}
    if sys.argv[1:] == ["--json"]:
        print(json.dumps(outcomes))
        return
    print("| file | got | MiB | s |\n|---|---|---|---|")
    for name, outcome in outcomes.items():
        text = outcome["text"].removesuffix(" Fetch or save it again.")
        print(f"| {name} | {outcome['raised']}: {text[:110]} | {outcome['growth_mib']} | {outcome['seconds']:.2f} |")


if __name__ == "__main__":
    main()
