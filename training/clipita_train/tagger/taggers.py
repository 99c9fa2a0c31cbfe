"""Taggers by name: functions that split captions into tokens and tag each with its universal part of speech.

One tagger comes with the package, trained by `clipita_train.tagger.recipe`. The others need software to be installed.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

Tagger = Callable[[Sequence[str]], list[list[tuple[str, str]]]]
"""Captions to the (token, tag of Universal Dependencies) of each, in order; an empty list where there are no tokens."""

WEIGHTS = Path(__file__).with_name("italian.npz")


@cache
def tagger_called(name: str) -> Tagger:
    """Return the tagger of this name; it is loaded once in each process.

    Raises:
        LookupError: It is not installed; the message says how to get it.
    """
    match name:
        case "clipita":
            return _clipita()
        case "stanza":
            return _stanza()
        case "apertium":
            return _apertium()
        case _:
            return _spacy(name)


def _clipita() -> Tagger:
    from clipita_train.tagger import student

    return _of_pipeline(student.load(WEIGHTS))


def _spacy(name: str) -> Tagger:
    import spacy

    try:
        nlp = spacy.load(name, exclude=["ner", "lemmatizer"])
    except OSError:
        raise LookupError(
            f"no tagger {name!r}: expected clipita, stanza, apertium, or a spaCy pipeline that is installed"
            f" (python -m spacy download it_core_news_sm) or in that folder"
        ) from None
    if not {"tagger", "morphologizer", "parser"} & set(nlp.pipe_names):
        raise LookupError(f"the spaCy pipeline {name!r} tags nothing: it has {', '.join(nlp.pipe_names) or 'no parts'}")
    return _of_pipeline(nlp)


def _of_pipeline(nlp: Any) -> Tagger:
    def tag(captions: Sequence[str]) -> list[list[tuple[str, str]]]:
        docs = nlp.pipe(map(plain, captions), batch_size=256)
        return [[(token.text, token.pos_) for token in doc if not token.is_space] for doc in docs]

    return tag


def _stanza() -> Tagger:
    try:
        import stanza

        pipeline: Any = stanza.Pipeline(
            "it",
            processors="tokenize,mwt,pos",
            download_method=stanza.DownloadMethod.NONE,
            use_gpu=False,
            verbose=False,
        )
    except Exception as error:  # stanza has many kinds of errors for what may be missing
        raise LookupError(
            f"stanza's Italian models cannot be used ({type(error).__name__}: {error}): pip install stanza,"
            f" then python -c \"import stanza; stanza.download('it')\""
        ) from None
    return lambda captions: of_stanza(pipeline, captions)


def of_stanza(pipeline: Callable[[str], Any], captions: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Convert what a Stanza pipeline returns; a contraction gets the tag of its first word."""
    return [
        [(token.text, token.words[0].upos) for sentence in pipeline(text).sentences for token in sentence.tokens]
        for text in map(plain, captions)
    ]


def _apertium() -> Tagger:
    """Run Apertium's Italian analyzer, grammar and statistical tagger, from any language pair that has Italian."""
    models = sorted(APERTIUM.glob("apertium-*/ita-*.automorf.bin"))
    missing = [program for program in ("lt-proc", "cg-proc", "apertium-tagger") if shutil.which(program) is None]
    if missing or not models:
        raise LookupError(
            f"Apertium's Italian cannot be used: {', '.join(missing) or f'no pair in {APERTIUM}'} not found;"
            f" sudo apt-get install apertium-srd-ita"
        )
    pair = models[0].with_name(models[0].name.removesuffix(".automorf.bin"))
    steps = [
        ["lt-proc", "-z", "-w", f"{pair}.automorf.bin"],
        ["cg-proc", "-z", "-w", f"{pair}.rlx.bin"],
        ["apertium-tagger", "-z", "-p", "-g", f"{pair}.prob"],
    ]

    def tag(captions: Sequence[str]) -> list[list[tuple[str, str]]]:
        stream = "".join(f"{_RESERVED.sub(' ', plain(text))}\0" for text in captions).encode()
        for step in steps:
            stream = subprocess.run(step, input=stream, stdout=subprocess.PIPE, check=True).stdout
        # A zero byte ends each text; the programs add more of them at the end.
        return [of_apertium(text) for text in stream.decode().split("\0")[: len(captions)]]

    return tag


APERTIUM = Path("/usr/share/apertium")
_RESERVED = re.compile(r"[\\\[\]{}^$/<>@\0]")  # characters with a meaning in its stream format
_UNIT = re.compile(r"\^([^/$]*)/([^$]*)\$|([^\s^$]+)")
# The first tag of a word says its part of speech; https://wiki.apertium.org/wiki/List_of_symbols
_APERTIUM_TAGS = {
    tag: universal
    for universal, tags in {
        "PROPN": "np",
        "NOUN": "n",
        "VERB": "vblex",
        "AUX": "vbmod vbser vbhaver",
        "ADJ": "adj",
        "ADV": "adv preadv",
        "ADP": "pr",
        "DET": "det predet",
        "PRON": "prn rel",
        "NUM": "num",
        "CCONJ": "cnjcoo",
        "SCONJ": "cnjsub cnjadv",
        "INTJ": "ij",
        "PUNCT": "sent cm lpar rpar guio lquot rquot",
    }.items()
    for tag in tags.split()
}


def of_apertium(text: str) -> list[tuple[str, str]]:
    """Parse the output of Apertium's tagger: ^nell'/in<pr>+il<det><def><mf><sg>$ becomes ("nell'", ADP).

    A word that it does not know, ^Hawtrey/*Hawtrey$, counts as a name if it has a capital.
    """
    tokens: list[tuple[str, str]] = []
    for word, analysis, outside in _UNIT.findall(text):
        if outside:
            tokens.append((outside, "PUNCT"))
        elif analysis.startswith("*"):
            tokens.append((word, "PROPN" if word[:1].isupper() else "X"))
        else:
            tokens.append((word, _APERTIUM_TAGS.get(analysis.partition("<")[2].partition(">")[0], "X")))
    return tokens


def plain(text: str) -> str:
    """Make apostrophes straight, as in treebanks, and spaces single."""
    return " ".join(text.replace("’", "'").split())
