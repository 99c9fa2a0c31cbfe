"""Let pages of the site show files of the repository that stand outside docs/, and link between its languages.

MkDocs knows the pages of one language at a time, and nothing outside docs/. Here

- a line `<!-- include FILE -->` becomes the Markdown file FILE of the repository, without its title; with
  `include-below` its other headings become those of a section;
- a line `<!-- help COMMAND -->` becomes what the command and those below it say of themselves, in the page's language;
- a line `<!-- collections -->` becomes the table of the collections that clipita-mini is trained on;
- a link to a page of the other language leads there;
- a picture outside docs/ is copied into the site;
- a link to any other file of the repository becomes its path, since the site may be read without the repository.

A file or a heading that is not there is a warning, and so the end of `mkdocs build --strict`.
"""

import functools
import html
import logging
import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from markdown.extensions.toc import slugify

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LANGUAGES = {"it": "", "en": "en/"}  # where the pages of each are in the site
log = logging.getLogger("mkdocs.plugins.repository")

_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]*(?:!\[[^\]]*\]\([^)]*\))?[^\[\]]*)\]\((?P<target>[^)\s]+)\)")
_INCLUDE = re.compile(r"^<!-- include(?P<below>-below)? (?P<file>\S+) -->$", re.MULTILINE)
_COLLECTIONS = "<!-- collections -->"
_HELP = re.compile(r"^<!-- help (\S+) -->$", re.MULTILINE)
_pictures: dict[str, Path] = {}  # address in the site: the file


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Include files, and turn the links that MkDocs does not know into what they mean in the site."""
    source = Path(page.file.abs_src_path)

    def included(found: re.Match[str]) -> str:
        file = ROOT / found["file"]
        if not file.is_file():
            log.warning("%s includes %s, which is not there", source, found["file"])
            return ""
        text = re.sub(r"\A# .*\n", "", file.read_text(encoding="utf-8"))
        if found["below"]:
            text = re.sub(r"^(#+) ", lambda heading: "#" * max(3, len(heading[1]) + 1) + " ", text, flags=re.MULTILINE)
        return _with_links(text, file, page)

    if _COLLECTIONS in markdown:
        markdown = markdown.replace(_COLLECTIONS, _collections())
    language = "it" if DOCS / "it" in source.parents else "en"
    markdown = _HELP.sub(lambda found: _help(found[1], language), markdown)
    return _INCLUDE.sub(included, _with_links(markdown, source, page))


def on_post_build(*, config: Any) -> None:
    """Copy the pictures that pages show and that stand outside docs/."""
    for address, file in _pictures.items():
        target = Path(config.site_dir) / address
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _help(name: str, language: str) -> str:
    """Return a section for the command of this name and each of its own commands, with its help at 80 columns."""
    from clipita_train.cli import main as train

    from clipita.cli.main import main
    from clipita.locale.commands import translated
    from clipita.locale.language import phrase, speaking

    def sections(command: click.Command, names: str, level: int, above: click.Context | None) -> Iterator[str]:
        settings = {"terminal_width": 80, **command.context_settings}  # else it is that of whoever builds the site
        context = click.Context(command, info_name=names.split()[-1], parent=above, **settings)
        yield f"{'#' * level} {names}\n\n```text\n{command.get_help(context)}\n```\n"
        if isinstance(command, click.Group) and not getattr(command, "subcommand_metavar", "").startswith("RECIPE"):
            for one in command.list_commands(context):
                found = command.get_command(context, one)
                assert found is not None
                yield from sections(found, f"{names} {one}", level + (level < 3), context)

    with speaking(language):
        command = {"clipita": translated(main, phrase), "clipita-train": train}[name]
        return "\n".join(sections(command, name, 2, None))


def _collections() -> str:
    """Return the collections as a table in Markdown."""
    from clipita_train.data.photographs.collections import COLLECTIONS

    rows = [f"| `{one.name}` | {', '.join((one.repository, *one.further))} | {one.licence} |" for one in COLLECTIONS]
    return "\n".join(["| name | on GitHub | terms |", "|---|---|---|", *rows])


def _with_links(markdown: str, source: Path, page: Any) -> str:
    """Return the text of a file with the links of its prose rewritten for the page that shows it."""
    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(lambda found: _link(found, source, page), part) for part in parts[::2]]
    return "".join(parts)


def _link(found: re.Match[str], source: Path, page: Any) -> str:
    """Return a link or a picture as the page needs it; see the head of this file."""
    text = found["text"] if found["image"] else _LINK.sub(lambda inner: _link(inner, source, page), found["text"])
    name, _, anchor = found["target"].partition("#")
    if not name or re.match(r"\w+:", name):
        return f"{found['image']}[{text}]({found['target']})"
    target = Path(posixpath.normpath((source.parent / name).as_posix()))
    if not target.exists():
        log.warning("%s links to %s, which is not there", source, found["target"])
        return text
    if found["image"]:
        return f'<img src="{_picture(target, page)}" alt="{html.escape(text)}" loading="lazy">'
    if shown := _page_of(target):
        return _to_page(text, shown, anchor, page)
    if target.suffix == ".webp":
        return f'<a href="{_picture(target, page)}">{text}</a>'
    path = target.relative_to(ROOT).as_posix()
    return f"`{path}`" if path.endswith(text.strip("`/")) else f"{text} (`{path}`)"


def _page_of(file: Path) -> Path | None:
    """Return the page that shows a Markdown file: itself, or the one that includes it; None for other files."""
    if file.suffix != ".md" or file.is_relative_to(DOCS):
        return file if file.suffix == ".md" else None
    name = file.relative_to(ROOT).as_posix()
    return next((page for page in sorted(DOCS.glob("en/**/*.md")) if name in _included_by(page)), None)


@functools.cache
def _included_by(page: Path) -> set[str]:
    return {found["file"] for found in _INCLUDE.finditer(page.read_text(encoding="utf-8"))}


def _to_page(text: str, target: Path, anchor: str, page: Any) -> str:
    """Return a link to another page: by its file, which MkDocs checks, or by its address in the other language."""
    here = Path(page.file.abs_src_path)
    end = f"#{anchor}" if anchor else ""
    language, *rest = target.relative_to(DOCS).parts
    if language == here.relative_to(DOCS).parts[0]:
        return f"[{text}]({posixpath.relpath(target.as_posix(), here.parent.as_posix())}{end})"
    if anchor and anchor not in _headings(target):
        log.warning("%s links to #%s, a heading that %s has not", here, anchor, target)
    address = LANGUAGES[language] + "/".join(rest).removesuffix(".md") + ".html"
    return f'<a href="{_relative(address, page)}{end}" hreflang="{language}">{text}</a>'


def _headings(page: Path) -> set[str]:
    files = [page, *(ROOT / name for name in _included_by(page))]
    lines = "\n".join(_FENCED.sub("", file.read_text(encoding="utf-8")) for file in files).splitlines()
    return {slugify(line.lstrip("# "), "-") for line in lines if line.startswith("#")}


def _picture(file: Path, page: Any) -> str:
    """Return the address of a picture from the page, and have it copied there."""
    address = f"pictures/{file.name}"
    if _pictures.setdefault(address, file) != file:
        log.warning("%s and %s have one name, and so one place in the site", file, _pictures[address])
    return _relative(address, page)


def _relative(address: str, page: Any) -> str:
    return posixpath.relpath(address, posixpath.dirname(page.file.dest_uri) or ".")
