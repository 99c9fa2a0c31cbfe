"""The phrases that are translated, found in the source.

    PYTHONPATH=tests python -m support.messages

brings clipita.po and clipita.mo up to date. A phrase that is new gets an empty translation to fill in, after which the
command is given again; one that the source has no more leaves. The tests say which are missing. A phrase is

- the help of a command, and what stands there for a value;
- what is given to `phrase`;
- whatever reads like a sentence anywhere else, unless it stands in one of the files that stay English;
- a message of click's own, in the version that is installed, and one of those that the system gives most often.
"""

import ast
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from support import ROOT
from support.catalogue import CATALOGUE, Message, read, write

PACKAGE = ROOT / "clipita"

# What stays English, by the reason for it.
ENGLISH = {
    f"{folder}/{file}.py": reason
    for reason, folder, files in (
        ("answers to programs; the page has its own words", "serve", "app archives batches gate immich metrics openai"),
        ("answers to programs; the page has its own words", "serve", "page_api requests"),
        ("no command runs this backend", "backends", "flax"),
        ("no command forks", "backends", "image_encoder"),
        ("no command writes checkpoints of transformers", "convert", "to_transformers layouts/to_vision_text"),
        ("sentences that a model reads", "convert", "samples"),
        ("labels and sentences that a model reads", "text", "italian italian_labels"),
        ("a page, which is Italian", "search", "contact_sheet"),
        ("clipita-train speaks English", "cli", "train"),
        ("no messages", "locale", "language recognition"),
    )
    for file in files.split()
}
# Mistakes in a call from Python, which no command makes.
MISTAKES = {"ValueError", "TypeError", "AttributeError", "RuntimeError", "AssertionError", "IndexError"}
NEVERTHELESS = {"images/rules.py", "towers/config.py"}  # theirs are turned into errors of a bundle
# What has words in it and is no message.
NO_SENTENCE = re.compile(
    "|".join(
        (
            r"(?:SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|WHERE)\b|.*\bJOIN\b|\w\.\w+ |photos p",  # SQL
            r"(?:dict|list|tuple|nnx)\b.*\[|str \||.* \| None|(?:Model|Index|LabelBank)\(|.* parameters",  # types
            r".*\n|<|xmlns|Bearer|clipita/|Description|truncated\|eof|\\b|\{'",  # files, headers and patterns
            r"system volume information|network trash folder|temporary items",  # folders
            r"Hugging Face hub|clipita bundle|last token|mean by root|weighted mean",  # facts about a model
        )
    ),
    re.IGNORECASE,
)
# The functions that translate an argument, and which.
GIVEN = {"phrase": 0, "number_between": 2}
# What the system says, and Python of it.
SYSTEM = [
    "[Errno {number:d}] {reason}",
    "[Errno {number:d}] {reason}: {path!r}",
    "[Errno {number:d}] {reason}: {path!r} -> {other!r}",
    "No such file or directory",
    "Permission denied",
    "Operation not permitted",
    "Not a directory",
    "Is a directory",
    "File exists",
    "Directory not empty",
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Input/output error",
    "File name too long",
    "Too many open files",
    "Cannot allocate memory",
    "Address already in use",
    "Cannot assign requested address",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Connection refused",
]


def of_source() -> dict[str, Message]:
    """Every phrase of clipita, of click and of the system."""
    found: dict[str, Message] = {}

    def add(text: str, place: str, plural: str = "") -> None:
        before = found.get(text)
        if before is None:
            found[text] = Message(text, plural, ("", "") if plural else ("",), (place,))
        elif place not in before.places:
            before.places = (*before.places, place)

    for text in of_commands():
        add(text, "the commands' help")
    for path in sorted(PACKAGE.glob("**/*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        for text in of_file(path, name):
            add(text, f"clipita/{name}")
    for text in of_tables():
        add(text, "tables")
    for text in SYSTEM:
        add(text, "the system")
    for text, plural in of_click():
        add(text, "click", plural)
    return found


def of_commands() -> list[str]:
    """The help of all commands, taken where it is translated."""
    from clipita.cli.main import main
    from clipita.locale.commands import translated

    found: list[str] = []

    def record(text: str) -> str:
        found.append(text)
        return text

    translated(main, record)
    return [text for text in found if re.search("[A-Za-z]{2}", text)]


def of_tables() -> list[str]:
    """Single words that are looked up by variable."""
    from clipita.images import photo_files

    words = [word for words in photo_files._REASONS.values() for word in words if word]
    return [*words, "characters", "entries", "Flax's msgpack", "WARNING", "ERROR"]


def of_click() -> Iterator[tuple[str, str]]:
    """Returns what click asks gettext for: each with its plural, or ""."""
    for path in sorted(Path(click.__file__).parent.glob("*.py")):
        if path.name in ("_winconsole.py", "shell_completion.py", "decorators.py", "termui.py", "_termui_impl.py"):
            continue  # of what no command of clipita does; of decorators, the two help texts come with the commands
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_", "ngettext"):
                texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                if texts and isinstance(texts[0], str):
                    yield texts[0], str(texts[1]) if node.func.id == "ngettext" else ""
    yield "Show this message and exit.", ""
    yield "required", ""


def of_file(path: Path, name: str) -> Iterator[str]:
    """The phrases of one file of source."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
    passed_over = set(_not_messages(tree, name))
    in_raise = {
        below
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and _is_translated(node, name)
        for below in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and not _is_translated(node, name):
            passed_over.update(ast.walk(node))
        if isinstance(node, ast.Call) and (place := GIVEN.get(getattr(node.func, "id", ""))) is not None:
            yield from (text.value for text in _choices(node.args[place]) if isinstance(text.value, str))
            passed_over.update(ast.walk(node.args[place]))
        if name in ENGLISH or node in passed_over:
            continue
        if isinstance(node, ast.Call) and _is_log(node):
            yield _log_template(node)
            passed_over.update(node.args)
        elif isinstance(node, (ast.JoinedStr, ast.Constant)) and _reads_like_a_sentence(node, node in in_raise):
            yield _template(node, constants)


def _choices(node: ast.expr) -> list[ast.Constant]:
    branches = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return [branch for branch in branches if isinstance(branch, ast.Constant)]


def _is_log(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "_log"


def _log_template(node: ast.Call) -> str:
    names = iter([_name(argument) for argument in node.args[1:]])
    template = node.args[0]
    assert isinstance(template, ast.Constant)
    return re.sub("%([rs])", lambda found: f"{{{next(names)}{'!r' if found[1] == 'r' else ''}}}", str(template.value))


def _not_messages(tree: ast.Module, name: str) -> Iterator[ast.AST]:
    """Docstrings, types in strings, and parts of f-strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield from (part for part in node.values if isinstance(part, ast.Constant))
            for part in node.values:
                if isinstance(part, ast.FormattedValue) and part.format_spec is not None:
                    yield from ast.walk(part.format_spec)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "cast":
            yield node.args[0]
        elif isinstance(node, ast.keyword) and node.arg in ("help", "short_help", "metavar"):
            yield from ast.walk(node.value)


def _is_translated(node: ast.Raise, name: str) -> bool:
    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return getattr(raised, "id", "") not in MISTAKES or name in NEVERTHELESS


def _reads_like_a_sentence(node: ast.JoinedStr | ast.Constant, is_raised: bool) -> bool:
    if isinstance(node, ast.Constant):
        if not isinstance(node.value, str):
            return False
        words = node.value
    else:
        words = "\0".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        whole = re.findall(r"(?:^|(?<= ))[A-Za-z]{2,}(?=[ ,.:;]|$)", words)
        long = re.search(r"(?:^|(?<= ))[A-Za-z]{4,} |(?<= )[A-Za-z]{4,}(?=[ ,:;]|$)", words)
        if len(whole) > 1 or long:
            return not NO_SENTENCE.match(words.strip())
    if NO_SENTENCE.match(words.strip()):
        return False
    if is_raised and re.search("[A-Za-z]{2}", words):
        return " " in words.strip()
    return bool(re.search(r"[A-Za-z]{2,}[,.;:]? \(?[A-Za-z]|^\{count:,\} \w", words))


def _template(node: ast.JoinedStr | ast.Constant, constants: dict[str, str]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    taken: dict[str, int] = {}
    pieces: list[str] = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            pieces.append(str(part.value).replace("{", "{{").replace("}", "}}"))
            continue
        assert isinstance(part, ast.FormattedValue)
        if isinstance(part.value, ast.Name) and part.value.id in constants:
            pieces.append(constants[part.value.id])
            continue
        if pieces and pieces[-1].endswith("}") and not pieces[-1].endswith("}}"):
            continue  # two values side by side count as one
        name = _name(part.value)
        taken[name] = taken.get(name, 0) + 1
        name += str(taken[name]) if taken[name] > 1 else ""
        spec = ast.unparse(part.format_spec)[2:-1] if part.format_spec is not None else ""
        pieces.append(f"{{{name}{'!r' if part.conversion == 114 else ''}{':' + spec if spec else ''}}}")
    return "".join(pieces)


def _name(node: ast.expr) -> str:
    """A name for a value in a message: of `str(path.parent)`, "parent"."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("did_you_mean", "_suggestion"):
        return "suggestion" if getattr(node.func, "id", "") == "did_you_mean" else "known_models"
    called = {
        id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }
    names: list[str] = []

    def visit(one: ast.AST) -> None:
        if isinstance(one, ast.Attribute):
            visit(one.value)
            names.append(one.attr)
        elif isinstance(one, ast.Name):
            if id(one) not in called:
                names.append(one.id)
        elif isinstance(one, ast.Subscript):
            visit(one.value)
        elif isinstance(one, ast.GeneratorExp | ast.ListComp):
            visit(one.generators[0].iter)
        elif isinstance(one, ast.BoolOp):
            visit(one.values[-1])
        elif isinstance(one, ast.IfExp):
            visit(one.body)
        else:
            for below in ast.iter_child_nodes(one):
                visit(below)

    visit(node)
    plain = [
        name.strip("_").lower() for name in names if name not in ("join", "map", "repr", "str", "get_args", "keys")
    ]
    name = plain[-1] if plain else "value"
    return {"near": "suggestion", "__name__": "type"}.get(name, name) or "value"


def updated(source: dict[str, Message], kept: dict[str, Message]) -> dict[str, Message]:
    """The phrases of the source with the translations that there are."""
    return {
        id: dataclasses.replace(message, translations=kept[id].translations)
        if id in kept and kept[id].plural == message.plural
        else message
        for id, message in source.items()
    }


def main(say: Callable[[str], object] = print) -> None:
    """Bring both files up to date, and count what is still to be translated."""
    messages = updated(of_source(), read())
    write(messages)
    say(f"{CATALOGUE}: {sum(not all(message.translations) for message in messages.values())} to translate")


if __name__ == "__main__":
    main()
