"""The command line in Italian: its help, what it prints, its errors; and what stays the same in both languages."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from clipita.cli.main import _OneLine, main
from clipita.locale.language import speaking

Run = Callable[..., Result]
ENGLISH = {
    "the",
    "of",
    "and",
    "with",
    "for",
    "is",
    "are",
    "to",
    "or",
    "this",
    "which",
    "print",
    "only",
    "default",
    "required",
}


@pytest.fixture
def italian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPITA_LANG", "it")


def in_both(run: Run, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[Result, Result]:
    """Runs a command, and returns what it prints in English, and then in Italian."""
    results: list[Result] = []
    for language in ("en", "it"):
        monkeypatch.setenv("CLIPITA_LANG", language)
        results.append(run(*arguments))
    assert results[0].exit_code == results[1].exit_code
    return results[0], results[1]


@pytest.mark.parametrize("name", ["", *main.commands])
def test_help_is_italian_at_80_columns(name: str) -> None:
    arguments = [name, "--help"] if name else ["--help"]
    english, italian = (
        CliRunner()
        .invoke(main, arguments, prog_name="clipita", env={"CLIPITA_LANG": language}, terminal_width=80)
        .stdout
        for language in ("en", "it")
    )
    assert max(map(len, italian.splitlines())) <= 80
    assert set(re.findall(r"(?<![\w-])[a-z]+(?![\w-])", italian.lower())) & ENGLISH == set()
    assert {"uso", "opzioni", "mostra"} <= set(re.findall(r"\w+", italian.lower()))
    options = [re.findall(r"^  (?:-\w, )?(--?[\w-]+)", text, re.MULTILINE) for text in (english, italian)]
    assert options[0] == options[1]
    examples = [re.findall(r"^ {6}(clipita .*)$", text, re.MULTILINE) for text in (english, italian)]
    assert [line.replace("owner/name", "autore/nome") for line in examples[0]] == examples[1]
    assert not name or examples[1]


def test_help_is_english_again_afterwards(italian: None) -> None:
    assert CliRunner().invoke(main, ["index", "--help"]).stdout.startswith("Uso: ")
    done = CliRunner().invoke(main, ["index", "--help"], env={"CLIPITA_LANG": "en"})
    assert done.stdout.startswith("Usage: ")
    assert "Show this message and exit." in done.stdout
    context = click.Context(main.commands["index"], info_name="index")
    assert "Make the photographs below FOLDER searchable." in main.commands["index"].get_help(context)


def test_the_locale_decides_without_clipita_lang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIPITA_LANG")
    monkeypatch.setenv("LC_ALL", "it_IT.UTF-8")
    assert "Comandi:" in CliRunner().invoke(main, ["--help"]).stdout
    monkeypatch.setenv("LC_ALL", "C")
    assert "Commands:" in CliRunner().invoke(main, ["--help"]).stdout


def test_an_index_speaks_italian(run: Run, photos: Path, italian: None) -> None:
    (photos / "rotta.jpg").write_bytes(b"")
    (photos / "scheda.psd").write_bytes(b"8BPS")
    first = run("index", photos)
    assert first.stdout == f"{photos}/.clipita: aggiunte: 3, non lette: 1; vettori calcolati: 3\n"
    assert first.stderr.splitlines() == [
        "rotta.jpg è vuota (0 byte). Copiarla o esportarla di nuovo, o usare iter_encode_image per andare avanti "
        "senza.",
        "Lasciati da parte: 1 in un formato che non si legge (.psd): esportare come JPEG o PNG; 2 con nome nascosto "
        "(.cache, .nascosta.png); 1 che non è un'immagine (.txt).",
    ]
    found = run("search", photos / "b.png", "--in", photos, "--copy-to", photos.parent / "copie")
    assert found.stderr == f"{photos.parent / 'copie'}: 3 fotografie\n"
    labels = run("label", "--in", photos, "--labels", "animals", "--min-cosine", "1", "--xmp")
    assert labels.stderr == "fotografie con etichette: 0 su 3\nfile XMP scritti: 0, invariati: 3\n"


ERRORS: list[tuple[list[str], str, str]] = [
    (
        ["search", "mare", "--in", "."],
        "Error: there is no index in '.' or above it. Make one first: clipita index '.'",
        "Errore: non c'è un indice in '.' né nelle cartelle che la contengono. Crearlo prima: clipita index '.'",
    ),
    (
        ["embed", ".", "-o", "x.png"],
        "Error: Invalid value for '--output': 'x.png' must end in .npz or .parquet.",
        "Errore: Valore non valido per '--output': 'x.png' deve finire in .npz o .parquet.",
    ),
    (
        ["index", "manca"],
        "Error: Invalid value for 'FOLDER': Directory 'manca' does not exist.",
        "Errore: Valore non valido per 'CARTELLA': Cartella 'manca': non esiste.",
    ),
    (["index"], "Error: Missing argument 'FOLDER'.", "Errore: Manca l'argomento 'CARTELLA'."),
    (["index", "--boh"], "Error: No such option '--boh'.", "Errore: Non c'è l'opzione '--boh'."),
    (["boh"], "Error: No such command 'boh'.", "Errore: Non c'è il comando 'boh'."),
    (["embed", "."], "Error: Missing option '--output' / '-o'.", "Errore: Manca l'opzione '--output' / '-o'."),
    (
        ["embed", ".", "-o", "x.npz", "-b", "tanti"],
        "Error: Invalid value for '--batch-size' / '-b': 'tanti' is not a valid integer range.",
        "Errore: Valore non valido per '--batch-size' / '-b': 'tanti' non è valido come numero.",
    ),
    (
        ["zero-shot", "manca.jpg", "gatto", "cane"],
        "Error: 'manca.jpg' does not exist. Check the path; a relative one starts at the working directory.",
        "Errore: 'manca.jpg' non esiste. Controllare il percorso; uno relativo parte dalla cartella in cui si lavora.",
    ),
    (
        ["zero-shot", "manca.jpg", "gatto", "gatto"],
        "Error: labels[0] and labels[1] are both 'gatto'; they would share its score. Remove one.",
        "Errore: labels[0] e labels[1] sono entrambe 'gatto'; si dividerebbero il punteggio. Toglierne una.",
    ),
    (
        ["zero-shot", "manca.jpg", "gatto", "--min-cosine", "3"],
        "Error: Invalid value for '--min-cosine': 3.0 is not a cosine, from -1 to 1",
        "Errore: Valore non valido per '--min-cosine': 3.0 non è un coseno, da -1 a 1",
    ),
    (
        ["info", "manca"],
        "Error: there is no model 'manca': no folder has this name, and the embedded models are: clipita-mini. A model "
        "on the hub is called 'owner/name'.",
        "Errore: non c'è un modello 'manca': nessuna cartella ha questo nome, e i modelli inclusi sono: clipita-mini. "
        "Un modello sull'hub si chiama 'autore/nome'.",
    ),
]


@pytest.mark.parametrize(("arguments", "english", "italian"), ERRORS, ids=lambda value: str(value)[:40])
def test_errors_in_both_languages(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], english: str, italian: str
) -> None:
    monkeypatch.chdir(tmp_path)
    results = in_both(run, monkeypatch, *arguments)
    assert [result.stderr.splitlines()[-1] for result in results] == [english, italian]
    assert [result.exit_code for result in results] == [2, 2]


def test_warnings_are_italian(run: Run, photos: Path, italian: None) -> None:
    assert run("zero-shot", photos / "b.png", "gatto").stderr == (
        "Avviso: un'etichetta sola ha sempre il 100 %, qualunque cosa mostri l'immagine. Indicarne anche altre, o "
        "--min-cosine. Le etichette si separano con spazi: clipita zero-shot foto.jpg gatto cane\n"
    )


def test_logged_warnings_are_italian() -> None:
    """In the words that the library logs; of another library's they stay."""
    form = _OneLine("%(levelname)s: %(message)s")
    asks = "they may not be used commercially"
    known = ("The weights of %r are under %s: %s.", ("owner/name", "cc-by-nc-4.0", asks))
    other = ("%d connections", (3,))
    records = [logging.LogRecord("clipita", logging.WARNING, "", 1, *message, None) for message in (known, other)]
    with speaking("it"):
        assert [form.format(record) for record in records] == [
            "AVVISO: I pesi di 'owner/name' hanno la licenza cc-by-nc-4.0: non si possono usare a scopo commerciale.",
            "AVVISO: 3 connections",
        ]
    assert form.format(records[0]) == f"WARNING: The weights of 'owner/name' are under cc-by-nc-4.0: {asks}."


def test_what_programs_read_is_the_same_in_both_languages(
    run: Run, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    (photos / "rotta.jpg").write_bytes(b"\xff\xd8\xff")
    run("index", photos)
    table = photos.parent / "tabella.csv"
    tables: list[bytes] = []
    for arguments in (
        ["index", photos, "--json"],
        ["search", photos / "b.png", "--in", photos, "--json"],
        ["search", photos / "b.png", "--in", photos, "-0"],
        ["label", "--in", photos, "--labels", "animals", "--csv", table, "--json"],
        ["duplicates", "--in", photos, "--json"],
        ["zero-shot", photos / "b.png", photos / "rotta.jpg", "-l", "gatto", "-l", "cane", "--json"],
        ["locate", photos / "b.png", "il mare", "--json"],
        ["embed", photos, "-o", photos.parent / "foto.npz", "--overwrite", "--json"],
        ["info", "--json"],
        ["models", "--json"],
    ):
        english, italian = in_both(run, monkeypatch, *arguments)
        assert english.stdout_bytes == italian.stdout_bytes, arguments
        assert english.stdout_bytes
    for language in ("en", "it"):
        monkeypatch.setenv("CLIPITA_LANG", language)
        run("label", "--in", photos, "--labels", "animals", "--csv", table)
        tables.append(table.read_bytes())
    assert tables[0] == tables[1]
    assert tables[0].startswith("\ufeffpath,label,share,cosine".encode())


def test_reasons_are_kept_in_english(run: Run, monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    """An index that an Italian made tells an Englishman in English what it could not read."""
    (photos / "rotta.jpg").write_bytes(b"")
    monkeypatch.setenv("CLIPITA_LANG", "it")
    run("index", photos)
    monkeypatch.setenv("CLIPITA_LANG", "en")
    assert '"error": "is empty (0 bytes). Copy or export it again' in run("index", photos, "--json").stdout
