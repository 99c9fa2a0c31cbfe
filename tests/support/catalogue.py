"""The catalogue of translations: read from clipita.po, written into it, and compiled into the clipita.mo beside it.

Only what these files need is known here: entries of one or two forms, and the files in which each stands.
"""

import ast
import dataclasses
import struct
from pathlib import Path

from support import ROOT

CATALOGUE = ROOT / "clipita" / "locale" / "it" / "LC_MESSAGES" / "clipita.po"
UPDATE = "PYTHONPATH=tests python -m support.messages"
HEADER = (
    "Language: it\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n"
    "Plural-Forms: nplurals=2; plural=(n != 1);\n"
)


@dataclasses.dataclass
class Message:
    """One entry of the catalogue.

    Attributes:
        id: The phrase in English.
        plural: Its other form, for those that have two.
        translations: One, or two for those with two forms.
        places: The files in which it stands.
    """

    id: str
    plural: str = ""
    translations: tuple[str, ...] = ("",)
    places: tuple[str, ...] = ()


def read(path: Path = CATALOGUE) -> dict[str, Message]:
    """The entries of a .po file, as this module writes them."""
    found: dict[str, Message] = {}
    if not path.exists():
        return found
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        fields: dict[str, str] = {}
        places: list[str] = []
        key = ""
        for line in block.splitlines():
            if line.startswith("#: "):
                places += line[3:].split("; ")
            elif line.startswith("#"):
                assert "fuzzy" not in line, f"{path}: a translation that is not sure: {block}"
            else:
                word, _, rest = line.partition(" ") if not line.startswith('"') else ("", "", line)
                key = word or key
                fields[key] = fields.get(key, "") + ast.literal_eval(rest)
        if fields.get("msgid"):  # the first block is the head
            translations = tuple(text for key, text in fields.items() if key.startswith("msgstr"))
            found[fields["msgid"]] = Message(
                fields["msgid"], fields.get("msgid_plural", ""), translations, tuple(places)
            )
    return found


def write(messages: dict[str, Message], path: Path = CATALOGUE) -> None:
    """Write a .po file, and beside it the .mo file that gettext reads."""
    blocks = [f"# The phrases of clipita in Italian. `{UPDATE}` brings this file up to date."]
    blocks[0] += "\n" + _lines("msgid", "") + "\n" + _lines("msgstr", HEADER)
    for message in messages.values():
        lines = [f"#: {'; '.join(message.places)}", _lines("msgid", message.id)]
        if message.plural:
            lines.append(_lines("msgid_plural", message.plural))
            lines += [_lines(f"msgstr[{number}]", text) for number, text in enumerate(message.translations)]
        else:
            lines.append(_lines("msgstr", message.translations[0]))
        blocks.append("\n".join(lines))
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    path.with_suffix(".mo").write_bytes(compiled(messages))


def _lines(key: str, text: str) -> str:
    parts = text.splitlines(keepends=True) or [""]
    quoted = [_quoted(part) for part in parts]
    return f"{key} {quoted[0]}" if len(parts) == 1 else "\n".join([f'{key} ""', *quoted])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return '"' + escaped.replace("\b", "\\b") + '"'


def compiled(messages: dict[str, Message]) -> bytes:
    """The .mo file: a header, the places of all phrases and translations, then these, each ended by a zero."""
    pairs = {"": HEADER} | {
        f"{message.id}\0{message.plural}" if message.plural else message.id: "\0".join(message.translations)
        for message in messages.values()
        if all(message.translations)
    }
    sides = [
        [side.encode() for side in sides]
        for sides in zip(*sorted(pairs.items(), key=lambda pair: pair[0].encode()), strict=True)
    ]
    count = len(pairs)
    start = 28 + 16 * count
    places, content = b"", b""
    for side in sides:
        for text in side:
            places += struct.pack("<2I", len(text), start + len(content))
            content += text + b"\0"
    return struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, start) + places + content
