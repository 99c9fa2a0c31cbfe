"""Every snippet of README.md runs, and gives what it says there, numbers apart."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def words_of(line: str) -> str:
    """The line with every number as "#", for what a retrained model may change."""
    return re.sub(r"\d[\d.,]*", "#", " ".join(line.split()))


def test_no_figure_is_missing() -> None:
    for document in (README, (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")):
        assert "«…»" not in document


def test_the_python_snippets_print_what_their_comments_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    blocks = snippets("python")
    assert blocks
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        namespace: dict[str, object] = {}
        for block in blocks:  # one after the other, as a reader would type them
            exec(compile(block, "README.md", "exec"), namespace)
    expected = [line.split("  # ")[1] for block in blocks for line in block.splitlines() if line.startswith("print(")]
    assert [*map(words_of, printed.getvalue().splitlines())] == [*map(words_of, expected)]


@pytest.mark.slow
def test_the_commands_print_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    blocks = snippets("console")
    assert blocks
    for block in blocks:
        for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = session.splitlines()
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            assert [*map(words_of, done.stdout.splitlines())][: len(shown)] == [*map(words_of, shown)], command
