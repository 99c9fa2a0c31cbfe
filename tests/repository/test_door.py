"""Check what visitors and releases meet first: both READMEs, the citation, the workflows, the forms of issues."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

import clipita

FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_both_readmes_have_the_same_parts() -> None:
    def parts(name: str) -> list[str]:
        return re.findall(r"^(?:#+(?= )|```\w+|\|(?=.)|!(?=\[))", text(name), re.MULTILINE)

    assert parts("README.md") == parts("README.it.md")
    for name in ("README.md", "README.it.md"):
        first = re.search(r"^```\w+\n(.*?)^```$", text(name), re.DOTALL | re.MULTILINE)
        assert first is not None
        assert first[1] == "pip install clipita\n"


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    assert f"\nversion: {clipita.__version__}\n" in text("CITATION.cff")
    assert f"\n## [{clipita.__version__}]" in text("CHANGELOG.md")


def test_actions_are_pinned() -> None:
    used = [line for path in WORKFLOWS for line in path.read_text("utf-8").splitlines() if "uses:" in line]
    assert used
    assert [line for line in used if not re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+$", line)] == []


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-issue-forms", [FORMS / "bug.yml", FORMS / "wish.yml"]),
        ("github-issue-config", [FORMS / "config.yml"]),
    ],
)
def test_github_can_read_what_is_for_it(schema: str, files: list[Path]) -> None:
    pytest.importorskip("check_jsonschema", reason="needs check-jsonschema: pip install --editable '.[test]'")
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
