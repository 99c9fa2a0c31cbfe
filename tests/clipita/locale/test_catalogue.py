"""The Italian catalogue: it has every phrase of the source and no other, and says the same values in both languages."""

import gettext
import io
import re
import string

from support import catalogue, messages

SOURCE = messages.of_source()
KEPT = catalogue.read()
UPDATE = f"{catalogue.UPDATE}, and fill in what is empty in clipita.po"


def fields(text: str) -> list[tuple[str, str | None, str | None]]:
    """The fields of a template; a text whose braces are none has no template."""
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError:
        return [(brace, None, None) for brace in re.findall("[{}]", text)]
    return sorted((name, spec, conversion) for _, name, spec, conversion in pieces if name is not None)


def test_every_phrase_is_translated() -> None:
    assert [id for id in SOURCE if id not in KEPT or not all(KEPT[id].translations)] == [], UPDATE


def test_no_translation_is_left_over() -> None:
    """Another version of click may have other messages; what it has no more does no harm."""
    assert [id for id, message in KEPT.items() if id not in SOURCE and message.places != ("click",)] == [], UPDATE


def test_translations_have_the_fields_of_the_phrase() -> None:
    for id, message in KEPT.items():
        forms = [message.id, message.plural or message.id]
        for form, translation in zip(forms, message.translations, strict=False):
            assert fields(translation) == fields(form), id


def test_translations_keep_the_edges_and_the_examples() -> None:
    """Spaces and line ends at the edges, the last mark, options and commands stay."""
    for id, message in KEPT.items():
        for form, translation in zip([id, message.plural], message.translations, strict=False):
            assert (id[:1] == " ") == (translation[:1] == " "), id
            assert (form[-1:] in ".?!:") == (translation[-1:] in ".?!:"), id
            assert (id.count("\b"), id.count("\t")) == (translation.count("\b"), translation.count("\t")), id
            for kept in (r"(?<!\S)--[a-z][a-z-]*", r"pip install [\w'\[\]-]+"):
                assert set(re.findall(kept, id)) == set(re.findall(kept, translation)), id


def test_the_compiled_catalogue_is_that_of_the_source() -> None:
    path = catalogue.CATALOGUE.with_suffix(".mo")
    assert path.read_bytes() == catalogue.compiled(KEPT), UPDATE
    read = gettext.GNUTranslations(io.BytesIO(path.read_bytes()))
    assert read.gettext("{count:,} photographs") == "{count:,} fotografie"
    assert read.ngettext("{value!r} is not {choice}.", "{value!r} is not one of {choices}.", 2).endswith("{choices}.")


def test_the_catalogue_is_written_as_it_is_read(tmp_path) -> None:
    catalogue.write(KEPT, tmp_path / "clipita.po")
    assert (tmp_path / "clipita.po").read_text("utf-8") == catalogue.CATALOGUE.read_text("utf-8")


def test_files_that_stay_english_are_there() -> None:
    assert [name for name in messages.ENGLISH if not (messages.PACKAGE / name).is_file()] == []


def test_phrases_are_found_where_they_stand(tmp_path) -> None:
    """The finder of phrases: what is said, in which form, and what is no phrase."""
    source = '''
"""A docstring is not said."""
_ADVICE = "Copy it again."
def refuse(path, size, kind, near):
    if kind:
        raise CheckpointError(f"{str(path.parent)!r} has {size:,} bytes. {_ADVICE}")
    raise ValueError("a mistake in a call")
    settings.execute("SELECT name FROM photos")
    cast("dict[str, Any]", near)
    _log.warning("The weights of %r are %s.", path, kind)
    return phrase("one" if near else "several", count=1)
'''
    path = tmp_path / "part.py"
    path.write_text(source, encoding="utf-8")
    assert sorted(messages.of_file(path, "part.py")) == [
        "Copy it again.",
        "The weights of {path!r} are {kind}.",
        "one",
        "several",
        "{parent!r} has {size:,} bytes. Copy it again.",
    ]
