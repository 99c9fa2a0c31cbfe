"""Add keywords to XMP, and take out again those that were added before, without touching a byte of anything else.

XMP is RDF in XML, which many programs write, each with fields of its own. Reading it into a tree and writing that out
would lose prefixes, comments and packet wrappers; so the text is parsed for where its fields are, and edited there.

Keywords are in three fields, because programs differ in which they read: dc:subject (all), lr:hierarchicalSubject
(Lightroom, darktable) and digiKam:TagsList. What clipita added to each is kept in three fields of its own namespace,
clipita:addedSubject and so on: only that is ever taken out again.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape

from clipita.errors import ClipitaError

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_OURS = "clipita:ns:labels/1.0/"
_CONTAINERS = tuple(f"{_RDF} {name}" for name in ("Bag", "Seq", "Alt"))
_ITEM = f"{_RDF} li"
_RDF_TAG, _DESCRIPTION = f"{_RDF} RDF", f"{_RDF} Description"

EMPTY = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="clipita">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="">
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""

# A tag from its "<" to its ">", which may stand in the value of an attribute too.
_TAG = re.compile(rb"""<(?:[^"'>]|"[^"]*"|'[^']*')*>""")
# Characters that XML 1.0 cannot hold in any form.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class XmpError(ClipitaError):
    """XMP that cannot be edited safely."""


class _Field(NamedTuple):
    """A field of keywords.

    Attributes:
        prefix: The usual one of its namespace.
        namespace: Its namespace.
        name: Its name there.
        container: "Bag" or "Seq", as its specification says.
        separator: What is between the levels of a keyword; "" where each level is a keyword by itself.
    """

    prefix: str
    namespace: str
    name: str
    container: str
    separator: str = ""

    @property
    def qualified(self) -> str:
        """The name as expat gives it."""
        return f"{self.namespace} {self.name}"

    def level(self, name: str) -> str:
        """Return the name of a level as it can stand there, without the separator in it."""
        return name.replace(self.separator, "-") if self.separator else name

    def values(self, levels: Sequence[str]) -> list[str]:
        """Return what a keyword is there."""
        names = [self.level(name) for name in levels]
        return [self.separator.join(names)] if self.separator else names

    def last_level(self, value: str) -> str:
        """Return the label itself, without what it is a kind of."""
        return value.split(self.separator)[-1] if self.separator else value

    @property
    def record(self) -> "_Field":
        """The field that keeps what clipita added to this one."""
        return _Field("clipita", _OURS, f"added{self.name[0].upper()}{self.name[1:]}", "Bag")


_SUBJECT = _Field("dc", "http://purl.org/dc/elements/1.1/", "subject", "Bag")
_HIERARCHY = _Field("lr", "http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject", "Bag", "|")
_TAGS = _Field("digiKam", "http://www.digikam.org/ns/1.0/", "TagsList", "Seq", "/")


def with_keywords(xmp: bytes | None, paths: Iterable[Sequence[str]], among: Iterable[Sequence[str]]) -> bytes:
    """Return XMP that has these keywords besides its own.

    Of what earlier calls added, that is taken out which is among the labels of this one and is not given any more;
    labels of another list stay.

    Args:
        xmp: What a sidecar holds; None if there is none.
        paths: Keywords, each with what it is a kind of before it: ("Animali", "Felini", "gatto").
        among: All that this call could have given, likewise.

    Returns:
        The XMP; the same bytes where nothing changes.

    Raises:
        XmpError: it is no XMP, has a DOCTYPE, or keeps its keywords in a form that is not known.
    """
    paths = [levels for path in paths if (levels := _clean(path))]
    names = {level for path in among for level in _clean(path)}
    xmp = EMPTY.encode() if xmp is None else xmp
    for field in (_SUBJECT, _HIERARCHY, _TAGS):
        values = [value for path in paths for value in field.values(path)]
        scope = {_same(field.level(name)) for name in names}
        there, record = _values(xmp, field), _values(xmp, field.record)
        added = {_same(value) for value in record} & {_same(value) for value in there}
        of_others = {_same(value) for value in there} - added
        kept = {value for value in added if field.last_level(value) not in scope}
        ours = {_same(value): value for value in values if _same(value) not in of_others | kept}
        for place, keep in ((field, of_others | kept | ours.keys()), (field.record, kept | ours.keys())):
            xmp = _changed(xmp, place, keep, list(ours.values()))
    return xmp


def _clean(path: Sequence[str]) -> list[str]:
    """Return the levels of a keyword as XML can hold them, and as it gives them back: white space is one space."""
    levels = [" ".join(_NOT_XML.sub("\ufffd", unicodedata.normalize("NFC", level)).split()) for level in path]
    return [level for level in levels if level]


def _same(text: str) -> str:
    """Return what is equal for keywords that a person takes for the same."""
    return unicodedata.normalize("NFC", text).casefold().strip()


@dataclasses.dataclass
class _Element:
    """Says where an element is: bytes from `start` to `end`, its tag to `inside`, its end tag from `outside`."""

    name: str
    start: int
    inside: int
    outside: int = -1
    end: int = -1
    texts: list[str] = dataclasses.field(default_factory=list[str])
    children: "list[_Element]" = dataclasses.field(default_factory=list["_Element"])

    @property
    def text(self) -> str:
        """The text that stands in it, without that of its children."""
        return "".join(self.texts)


def _values(xmp: bytes, field: _Field) -> list[str]:
    return [item.text for _, bag in _bags(_descriptions(xmp, field), field) if bag for item in _items(bag)]


def _changed(xmp: bytes, field: _Field, keep: Iterable[str], add: Sequence[str]) -> bytes:
    """Return XMP whose field holds those of its values that are to be kept, and those to be added."""
    keep = set(keep)
    descriptions = _descriptions(xmp, field)
    bags = _bags(descriptions, field)
    items = [item for _, bag in bags if bag for item in _items(bag)]
    there = {_same(item.text) for item in items}
    new: dict[str, str] = {}
    for value in add:
        if _same(value) not in there:
            new.setdefault(_same(value), value)
    gone = [item for item in items if _same(item.text) not in keep]
    edits: list[tuple[int, int, bytes]] = []
    if gone and not new and len(gone) == len(items) and len(bags) == 1 and len(_children(bags[0][1])) == len(items):
        element = bags[0][0]
        edits.append((_line_start(xmp, element.start), element.end, b""))
    else:
        edits += [(_line_start(xmp, item.start), item.end, b"") for item in gone]
        if new and (bag := next((bag for _, bag in bags if bag), None)):
            edits.append(_into(xmp, bag, _lines(xmp, bag, new.values(), b"li")))
        elif new:
            description, old = descriptions[0], next((element for element, _ in bags), None)
            if old is not None:  # <dc:subject/>
                edits.append((_line_start(xmp, old.start), old.end, b""))
            edits.append(_into(xmp, description, _new_field(xmp, description, field, new.values())))
    for start, end, text in sorted(edits, reverse=True):
        xmp = xmp[:start] + text + xmp[end:]
    return xmp


def _bags(descriptions: list[_Element], field: _Field) -> list[tuple[_Element, _Element | None]]:
    """Return every element of a field, with the bag in it, or None if it is empty."""
    found: list[tuple[_Element, _Element | None]] = []
    for element in (child for each in descriptions for child in each.children if child.name == field.qualified):
        if not element.children and not element.text.strip():
            found.append((element, None))
        elif len(element.children) == 1 and element.children[0].name in _CONTAINERS and not element.text.strip():
            found.append((element, element.children[0]))
        else:
            raise XmpError(f"its {field.prefix}:{field.name} is not a list of keywords")
    return found


def _items(bag: _Element) -> list[_Element]:
    return [child for child in bag.children if child.name == _ITEM and not child.children]


def _children(bag: _Element | None) -> list[_Element]:
    return bag.children if bag else []


def _line_start(xmp: bytes, start: int) -> int:
    """Return where the white space before an element begins, if it stands on a line of its own."""
    before = len(xmp[:start].rstrip(b" \t"))
    if xmp[:before].endswith(b"\r\n"):
        return before - 2
    return before - 1 if xmp[:before].endswith(b"\n") else start


def _indent(xmp: bytes, element: _Element) -> bytes | None:
    """Return the line break and white space before an element, or None if it stands in the midst of a line."""
    start = _line_start(xmp, element.start)
    return None if start == element.start else xmp[start : element.start]


def _prefix(xmp: bytes, element: _Element) -> bytes:
    """Return the prefix that RDF's names have there, with its colon."""
    name = re.split(rb"[\s/>]", xmp[element.start + 1 : element.inside], maxsplit=1)[0]
    prefix, colon, _ = name.rpartition(b":")
    return prefix + colon


def _lines(xmp: bytes, parent: _Element, values: Iterable[str], name: bytes) -> bytes:
    indent, tag = _indent(xmp, parent), _prefix(xmp, parent) + name
    before = b"" if indent is None else indent + b" "
    return b"".join(before + b"<%b>%b</%b>" % (tag, escape(value).encode(), tag) for value in values)


def _new_field(xmp: bytes, description: _Element, field: _Field, values: Iterable[str]) -> bytes:
    indent, rdf = _indent(xmp, description), _prefix(xmp, description)
    line, step = (b"", b"") if indent is None else (indent, b" ")
    name, bag = f"{field.prefix}:{field.name}".encode(), rdf + field.container.encode()
    space = f' xmlns:{field.prefix}="{field.namespace}"'.encode()
    items = b"".join(b"%b<%bli>%b</%bli>" % (line + step * 3, rdf, escape(value).encode(), rdf) for value in values)
    return (
        b"%b<%b%b>%b<%b>" % (line + step, name, space, line + step * 2, bag)
        + items
        + b"%b</%b>%b</%b>" % (line + step * 2, bag, line + step, name)
    )


def _into(xmp: bytes, element: _Element, text: bytes) -> tuple[int, int, bytes]:
    """Return the edit that puts text at the end of an element, which may be written as an empty one."""
    line = _indent(xmp, element) or b""
    if element.outside < 0:
        tag = xmp[element.start : element.end]
        name = re.split(rb"[\s/>]", tag[1:], maxsplit=1)[0]
        return element.start, element.end, tag[:-2].rstrip() + b">" + text + line + b"</" + name + b">"
    at = _line_start(xmp, element.outside)
    ending = b"" if at < element.outside else line if text.startswith((b"\n", b"\r")) else b""
    return at, at, text + ending


def _descriptions(xmp: bytes, field: _Field) -> list[_Element]:
    """Return the descriptions of XMP with all that is in them, found by expat, which reads no other file.

    A DOCTYPE is refused where it begins, so that no entity of it is ever seen.
    """
    parser = expat.ParserCreate("UTF-8", namespace_separator=" ")
    parser.buffer_text = True
    top = _Element("", 0, 0)
    stack = [top]

    def refuse(*_: object) -> None:
        raise XmpError("it has a DOCTYPE, which XMP has not")

    def check_encoding(_: str, encoding: str | None, __: int) -> None:
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8"):
            raise XmpError(f"it is in {encoding}, and XMP beside a photograph is in UTF-8")

    def start(name: str, attributes: dict[str, str]) -> None:
        if field.qualified in attributes and (stack[-1].name, name) == (_RDF_TAG, _DESCRIPTION):
            raise XmpError(f"its {field.prefix}:{field.name} is not a list of keywords")
        at = parser.CurrentByteIndex
        tag = _TAG.match(xmp, at)
        if tag is None:
            raise XmpError("it cannot be understood")
        element = _Element(name, at, tag.end())
        stack[-1].children.append(element)
        stack.append(element)

    def end(_: str) -> None:
        element = stack.pop()
        if xmp[element.inside - 2 : element.inside] == b"/>":
            element.end = element.inside
        else:
            element.outside = parser.CurrentByteIndex
            element.end = xmp.index(b">", element.outside) + 1

    def text(data: str) -> None:
        stack[-1].texts.append(data)

    parser.StartDoctypeDeclHandler, parser.XmlDeclHandler = refuse, check_encoding
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    try:
        parser.Parse(xmp, True)
    except expat.ExpatError as error:
        raise XmpError(f"it is no XML: {error}") from None
    rdf = [*top.children]
    while rdf and rdf[0].name != _RDF_TAG:  # x:xmpmeta, or nothing, is around it
        rdf = rdf[0].children if len(rdf) == 1 else []
    found = [child for each in rdf for child in each.children if child.name == _DESCRIPTION]
    if not found:
        raise XmpError("it is no XMP: there is no rdf:Description in it")
    return found
