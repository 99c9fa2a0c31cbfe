"""A process that uses clipita writes nothing below the user's home and opens no connection: the system calls say so.

Patching Python's sockets would not tell: ONNX Runtime is C++, and its telemetry came with an upgrade.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import PHOTOS

import clipita

PHOTO = PHOTOS / "gatto.jpg"
USE = f"""
import clipita
model = clipita.load()
model.encode_text("un gatto nero")
assert clipita.zero_shot({str(PHOTO)!r}, ["gatto", "cane"])[0].label == "gatto"
[list(model.iter_encode_image([{str(PHOTO)!r}] * 3))]
"""
# Long enough for a telemetry that runs in the background to be at work.
IDLE = "\nimport time; time.sleep(5)\n"

# Any of these would keep a telemetry that is there from showing itself.
HUSHES = ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "TF_BUILD", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("strace") is None,
        reason="needs strace, which shows a process's system calls: apt-get install strace",
    ),
]


def traced(home: Path, code: str, scratch: Path) -> tuple[list[str], list[str]]:
    """Run Python code with `home` as its home; return the connections that it tried and the files that it wrote."""
    trace = scratch / "trace.txt"
    environment = {name: value for name, value in os.environ.items() if name not in HUSHES and "XDG" not in name}
    command = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,openat,open,creat,mkdir,rename", "-o", str(trace)]
    done = subprocess.run(
        [*command, sys.executable, "-B", "-W", "error", "-c", code],
        env=environment | {"HOME": str(home), "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = trace.read_text().splitlines()
    connections = [line for line in lines if "AF_INET" in line]
    wrote = re.compile(r"(O_WRONLY|O_RDWR|O_CREAT|creat\(|mkdir\(|rename\().*= \d+$")
    files = [line for line in lines if wrote.search(line) and "/dev/" not in line and "/proc/" not in line]
    return connections, files


@pytest.mark.parametrize(
    "order", ["import clipita", "import clipita, onnxruntime", "import clipita, huggingface_hub, tokenizers"]
)
def test_no_connection_and_no_file_whatever_is_imported_after_clipita(tmp_path: Path, order: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert traced(home, order + USE + IDLE, tmp_path) == ([], [])
    assert list(home.rglob("*")) == []


def test_no_connection_no_file_and_no_warning_where_the_home_cannot_be_written_to(tmp_path: Path) -> None:
    assert traced(Path("/proc"), USE + IDLE, tmp_path) == ([], [])  # not even by root


def test_embed_writes_its_file_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "foto"
    folder.mkdir()
    shutil.copy(PHOTO, folder)
    output = tmp_path / "foto.npz"
    code = f"""
import sys
from clipita.cli.main import main
sys.argv = ["clipita", "embed", {str(folder)!r}, "-o", {str(output)!r}, "--json"]
sys.stdout = sys.stderr = open("/dev/null", "w")
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    connections, files = traced(Path("/proc"), code + IDLE, tmp_path)
    assert connections == []
    assert [line for line in files if "foto.npz" not in line] == []
    assert output.is_file()


def test_a_telemetry_that_is_let_run_is_seen(tmp_path: Path) -> None:
    """Another library that imports ONNX Runtime first starts its telemetry: this is what the tests above would see."""
    import onnxruntime

    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    home = tmp_path / "home"
    home.mkdir()
    connections, files = traced(home, "import onnxruntime" + USE + IDLE, tmp_path)
    assert bool(connections or files) == (version >= (1, 29))


def test_what_the_user_has_set_stays() -> None:
    code = "import clipita, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for before, after in ((None, "1"), ("", "1"), ("0", "0"), ("1", "1")):
        environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        environment |= {} if before is None else {"ORT_DISABLE_TELEMETRY": before}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == after
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert clipita.__version__
