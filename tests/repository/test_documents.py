"""The code in README and the pages of docs/ runs and gives what is written there, numbers apart.

Of a page's blocks, those called python and console are run, one after the other, in a folder with the photographs of
examples/photos in `foto`. Those that need a network or hours are called py and bash: of them the imports are made, and
every option of clipita is looked up.
"""

import ast
import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from clipita_train.cli import main as train_command
from support import PHOTOS, ROOT

from clipita.cli.main import main as command

DOCUMENTS = [
    *sorted(ROOT.glob("README*.md")),
    *(ROOT / name for name in ("CONTRIBUTING.md", "MODEL_CARD.md", "training/README.md")),
    *sorted(ROOT.glob("docs/*/**/*.md")),
]
COMMANDS: dict[str, click.Command] = {"clipita": command, "clipita-train": train_command}


def blocks(document: Path, *languages: str) -> list[tuple[str, str]]:
    """The blocks of code in some languages, each with its language."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def with_blocks(*languages: str) -> pytest.MarkDecorator:
    found = [document for document in DOCUMENTS if blocks(document, *languages)]
    assert found
    return pytest.mark.parametrize("document", found, ids=lambda path: path.relative_to(ROOT).as_posix())


def words_of(line: str) -> str:
    """The line with every number as "#", for what a retrained model may change."""
    return re.sub(r"\d[\d.,]*", "#", " ".join(line.split()))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "foto").mkdir()
    for photo in PHOTOS.glob("*.jpg"):
        shutil.copy(photo, tmp_path / "foto")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_figure_is_missing(document: Path) -> None:
    assert "«…»" not in document.read_text(encoding="utf-8")


def test_each_page_is_there_in_italian_and_english() -> None:
    """Only what trainers read beyond the start is in English alone; the Italian page links to it."""
    pages = {
        language: {path.relative_to(ROOT / "docs" / language) for path in ROOT.glob(f"docs/{language}/**/*.md")}
        for language in ("it", "en")
    }
    only_english = {
        Path("training", f"{name}.md") for name in ("collections", "data", "evaluate", "history", "whole-towers")
    }
    assert pages["en"] - pages["it"] == only_english
    assert pages["it"] <= pages["en"]
    for page in pages["it"]:
        italian, english = (ROOT / "docs" / language / page for language in ("it", "en"))
        languages = [[language for language, _ in blocks(path, "python", "console")] for path in (italian, english)]
        assert languages[0] == languages[1], page


def test_files_that_pages_name_are_there() -> None:
    places = (ROOT, ROOT / "clipita", ROOT / "training" / "clipita_train", ROOT / "training")
    for document in DOCUMENTS:
        for name in re.findall(r"`([a-z_./]+/[a-z_0-9]+\.(?:py|md|tsv))`", document.read_text(encoding="utf-8")):
            assert any((place / name).exists() for place in places), f"{document}: {name}"


def test_links_between_files_lead_somewhere() -> None:
    """Building the site checks those of its pages once more, their headings too."""
    for document in DOCUMENTS:
        for name in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
            assert ":" in name or (document.parent / name).exists(), f"{document}: {name}"


def test_the_picture_of_the_arrows_is_of_the_contracts() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    import draw_arrows

    assert draw_arrows.picture() == draw_arrows.PICTURE.read_text("utf-8"), "python docs/draw_arrows.py"


@pytest.mark.slow
@with_blocks("python", "console")
def test_code_gives_what_is_shown(document: Path, place: Path) -> None:
    """One block after the other, as a reader would type them."""
    if document.name.startswith("README"):
        shutil.rmtree(place / "foto")  # made by its first command
    names: dict[str, object] = {}
    for language, block in blocks(document, "python", "console"):
        if language == "python":
            run_python(block, names, document.name)
        else:
            run_commands(block, place, "it" if ".it." in document.name or "it" in document.parts else "en")


def run_python(block: str, names: dict[str, object], document: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block, document, "exec"), names)
    prints = [line for line in map(str.strip, block.splitlines()) if line.startswith("print(")]
    assert [*map(words_of, printed.getvalue().splitlines())] == [words_of(line.split("  # ")[1]) for line in prints]


def run_commands(block: str, place: Path, language: str) -> None:
    environment = {
        **os.environ,
        "CLIPITA_LANG": language,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, *shown = session.splitlines()
        done = subprocess.run(
            ["bash", "-c", line], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert [*map(words_of, done.stdout.splitlines())][: len(shown)] == [*map(words_of, shown)], line


@with_blocks("py")
def test_python_that_is_not_run_imports_what_is_there(document: Path) -> None:
    for _, block in blocks(document, "py"):
        for statement in ast.walk(ast.parse(block)):
            if isinstance(statement, ast.ImportFrom) and statement.module:
                module = importlib.import_module(statement.module)
                assert [name.name for name in statement.names if not hasattr(module, name.name)] == []


@with_blocks("bash", "sh", "console")
def test_commands_have_the_options_that_are_given(document: Path) -> None:
    for _, block in blocks(document, "bash", "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            for words in commands_of(line.removeprefix("$ ")):
                check_options(COMMANDS[Path(words[0]).name], words[1:], " ".join(words))


def commands_of(line: str) -> list[list[str]]:
    """The commands of clipita on a line of a shell, each as its words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            commands.append([]) if re.fullmatch("[|&;<>]+", word) else commands[-1].append(word)
    except ValueError:  # a quotation over several lines, or what a command prints
        return []
    return [words for words in commands if words and Path(words[0]).name in COMMANDS]


def check_options(command: click.Command, words: list[str], line: str, above: click.Context | None = None) -> None:
    """Parse options as click does, without looking at their values; a recipe in a file is taken for one of ours."""
    # With its parent, as in a real run: commands keep the names of their option for help from their first context.
    settings = {"info_name": line, "resilient_parsing": True, **command.context_settings}
    context = click.Context(command, parent=above, **settings)
    try:
        rest = command.make_parser(context).parse_args(list(words))[1]
    except click.UsageError as error:
        raise AssertionError(f"{line}: {error.format_message()}") from None
    if isinstance(command, click.Group) and rest:
        name = "clip_small" if rest[0].endswith(".py") else rest[0]
        subcommand = command.get_command(context, name)
        assert subcommand is not None, f"{line}: there is no command {name!r}"
        check_options(subcommand, rest[1:], line, context)
