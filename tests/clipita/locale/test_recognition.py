"""English messages of the library, said in Italian: every template is recognized, and no user's word is translated."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import catalogue

from clipita.locale import recognition
from clipita.locale.language import phrase, speaking
from clipita.locale.recognition import of_file, recognized


@pytest.fixture(autouse=True)
def italian() -> Iterator[None]:
    with speaking("it"):
        yield


def filled(template: str, values: dict[str, str]) -> str:
    return recognition._filled(template, values)


def written(name: str, kind: str) -> str:
    """A value as an f-string would write it."""
    if name == "suggestion":
        return " Did you mean 'gatto'?"
    # Some have words of messages in them, which must stay.
    return {"number": "12,345", "literal": "'il mare is missing: \"x.jpg'", "quoted": "/foto/mare", "": f"its {name}"}[
        kind
    ]


CLICKS = {id for id, message in catalogue.read().items() if message.places == ("click",)}  # said by click itself
TEMPLATES = [template for template in recognition._templates() if template.text not in CLICKS]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.text[:40])
def test_each_template_is_recognized(template: recognition._Template) -> None:
    if template.text == " Did you mean {suggestion!r}?":
        assert recognized(" Did you mean 'gatto'?") == " Forse 'gatto'?"
        return
    english = {name: written(name, kind) for name, kind in template.fields.items()}
    italian = {name: "12.345" if template.fields[name] == "number" else value for name, value in english.items()}
    if "suggestion" in italian:
        italian["suggestion"] = " Forse 'gatto'?"
    assert recognized(filled(template.text, english)) == filled(phrase(template.text), italian)


def test_messages_within_messages_are_translated() -> None:
    text = (
        "the index 'foto/.clipita' cannot be written: No space left on device. Make room there and give the same "
        "command again: what was done is kept."
    )
    assert recognized(text) == (
        "l'indice 'foto/.clipita' non si può scrivere: non c'è più spazio sul disco. Fare spazio e ripetere lo stesso "
        "comando: ciò che è stato fatto resta."
    )


def test_names_stay_as_they_are() -> None:
    assert recognized("'nothing to do' is not a folder.") == "'nothing to do' non è una cartella."
    assert recognized("'a is missing.jpg' is a folder, expected an image file. Pass the files in it one by one.") == (
        "'a is missing.jpg' è una cartella, è atteso un file di immagine. Passare uno per uno i file che contiene."
    )
    assert recognized(
        r"""images[3] ("l'ora.jpg") is empty (0 bytes). Copy or export it again, or use """
        "iter_encode_image to go on without it."
    ).startswith("""images[3] ("l'ora.jpg") è vuota (0 byte).""")


def test_a_message_that_can_be_read_in_two_ways_stays_english() -> None:
    twice = "x is y is z, expected a number from 1 to 2. Export the bundle again."
    assert recognized(twice) == twice


def test_an_empty_value_at_the_end_takes_its_space_with_it() -> None:
    assert recognized("'foto' holds no image: no file below it ends in .jpg.") == (
        "'foto' non contiene immagini: nessun file al suo interno finisce in .jpg."
    )


def test_an_image_in_no_known_format_is_told_of_heic() -> None:
    start = "'x.heic' is no image in a known format: it starts with b'ftyp'. Convert it to one of JPEG, PNG."
    said = (
        "'x.heic' non è un'immagine in un formato conosciuto: comincia con b'ftyp'. Convertirla in uno tra JPEG, PNG."
    )
    assert recognized(start) == said
    heic = " If it is HEIC: pip install 'clipita[heic]' reads it."
    assert recognized(start + heic) == f"{said} Se è HEIC, si legge con pip install 'clipita[heic]'."


def test_errors_of_the_system_are_recognized() -> None:
    with pytest.raises(FileNotFoundError) as error:
        Path("/non/esiste.jpg").read_bytes()
    assert recognized(str(error.value)) == "[Errno 2] il file o la cartella non esiste: '/non/esiste.jpg'"


def test_reasons_are_said_of_their_file() -> None:
    reason = (
        "is truncated: its data end too early (eof). Copy or export it again, or use iter_encode_image to go on "
        "without it."
    )
    assert of_file("mare.jpg", reason).startswith("mare.jpg è troncata: i suoi dati finiscono troppo presto (eof). ")
    assert of_file("mare.jpg", "cannot be read: Permission denied") == "mare.jpg non si può leggere: permesso negato"
    assert of_file("mare.jpg", "another reason") == "mare.jpg another reason"


def test_english_is_left_alone() -> None:
    with speaking("en"):
        assert recognized("'foto' is not a folder.") == "'foto' is not a folder."
    assert recognized("nobody knows this") == "nobody knows this"
    assert recognized("") == ""
