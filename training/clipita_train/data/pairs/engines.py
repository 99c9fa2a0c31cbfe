"""Engines that translate captions: DeepL by its official client, and OPUS-MT, NLLB and M2M100 on this machine.

Both need `pip install 'clipita[translate]'`. CLIP-Italian translated its English captions with DeepL.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipita.errors import ModelNotFoundError
from clipita_train.data.pairs.translate import Engine, EngineStoppedError, Failure

ENGINES = ("deepl", "ctranslate2")
KEY = "DEEPL_AUTH_KEY"

# ISO 639-1 to 639-3, which the language tokens of OPUS-MT and NLLB are made of.
_LANGUAGES = {"de": "deu", "en": "eng", "es": "spa", "fr": "fra", "it": "ita", "pt": "por"}
_CONVERT = "ct2-transformers-converter --model {0} --output_dir FOLDER --copy_files source.spm target.spm"


@dataclass(frozen=True)
class EngineSettings:
    """The choice of an engine, and its settings.

    Attributes:
        name: "deepl" or "ctranslate2".
        source: Language of the captions, ISO 639-1.
        target: Language of the translations.
        model: For ctranslate2, the folder of a converted model, or a repository on the hub that holds one, as NAME or
            NAME@REVISION. For DeepL its `model_type`; "" takes DeepL's default.
        glossary: Terms and their translations; DeepL only.
        beams: Width of the beam search of ctranslate2; 1 is greedy.
    """

    name: str
    source: str = "en"
    target: str = "it"
    model: str = ""
    glossary: Mapping[str, str] = field(default_factory=dict)
    beams: int = 4


def open_engine(settings: EngineSettings) -> Engine:
    """Open the engine that the settings name.

    Raises:
        ValueError: There is no such engine, or it cannot do what the settings ask.
        ImportError: Its package is not installed.
        ModelNotFoundError: The model for ctranslate2 is neither on this machine nor on the hub.
    """
    match settings.name:
        case "deepl":
            return DeepL(settings)
        case "ctranslate2":
            return CTranslate2(settings)
        case name:
            raise ValueError(f"no engine is called {name!r}; there are: {', '.join(ENGINES)}")


class DeepL:
    """DeepL's service. It takes the key from DEEPL_AUTH_KEY, and makes a glossary there when it first needs one."""

    name = "deepl"
    batch = 50  # limit of texts in a request; also 128 KiB: developers.deepl.com/docs/api-reference/translate
    longest = 20_000

    def __init__(self, settings: EngineSettings, *, server: str | None = None) -> None:
        try:
            import deepl
        except ImportError:
            raise ImportError("DeepL needs its client: pip install 'clipita[translate]'") from None
        if not (key := os.environ.get(KEY)):
            raise ValueError(f"set {KEY} in the environment to the key of your DeepL account")
        self._deepl, self._settings = deepl, settings
        self._client = deepl.DeepLClient(key, server_url=server, send_platform_info=False)
        terms = json.dumps(sorted(settings.glossary.items()))
        self.identity = (settings.model, settings.source, settings.target, terms if settings.glossary else "")
        self._glossary: Any = None

    def translate(self, texts: Sequence[str]) -> list[str | Failure]:
        """Translate texts, as `clipita_train.data.pairs.translate.Engine` describes."""
        return self._halve(list(texts))

    def _halve(self, texts: list[str]) -> list[str | Failure]:
        """Send texts in one request. If it is refused, halve it again and again, to find the text that is refused."""
        try:
            return self._ask(texts)
        except self._deepl.DeepLException as error:
            if error.http_status_code not in (400, 413):
                raise
            if len(texts) == 1:
                return [Failure(str(error))]
            first, second = texts[: len(texts) // 2], texts[len(texts) // 2 :]
            results = self._halve(first)
            try:
                results += self._halve(second)
            except EngineStoppedError as stopped:  # finished translations have been paid for
                raise EngineStoppedError(stopped.status, str(stopped), [*results, *stopped.done]) from stopped
            if all(isinstance(result, Failure) for result in results) and len(texts) == self.batch:
                raise ValueError(f"DeepL refuses all of {len(texts)} captions: {error}") from error
            return results

    def _ask(self, texts: list[str]) -> list[str | Failure]:
        try:
            results: Any = self._client.translate_text(
                texts,
                source_lang=self._settings.source,
                target_lang=self._settings.target,
                model_type=self._settings.model or None,
                glossary=self._find_glossary(),
            )
        except self._deepl.AuthorizationException as error:
            raise ValueError(f"DeepL does not take the key in {KEY}: {error}") from error
        except self._deepl.QuotaExceededException as error:
            raise EngineStoppedError("quota", str(error)) from error
        except self._deepl.DeepLException as error:
            if not error.should_retry:
                raise
            raise EngineStoppedError("unavailable", str(error)) from error  # the client has tried several times already
        if len(results) != len(texts):
            raise ValueError(f"DeepL answered {len(texts)} texts with {len(results)} translations")
        return [result.text if result.text.strip() else Failure("an empty translation") for result in results]

    def _find_glossary(self) -> Any:
        if self._settings.glossary and self._glossary is None:
            name = f"clipita {hashlib.sha256(json.dumps(self.identity).encode()).hexdigest()[:16]}"
            same = [glossary for glossary in self._client.list_glossaries() if glossary.name == name]
            self._glossary = (
                same[0]
                if same
                else self._client.create_glossary(
                    name, self._settings.source, self._settings.target, dict(self._settings.glossary)
                )
            )
        return self._glossary


class CTranslate2:
    """A converted model with its SentencePiece files, source.spm and target.spm or sentencepiece.bpe.model."""

    name = "ctranslate2"
    batch = 256
    longest = 100_000
    longest_text = 400  # pieces, since OPUS-MT has 512 positions
    longest_translation = 500

    def __init__(self, settings: EngineSettings, *, threads: int = 0) -> None:
        try:
            import ctranslate2
            import sentencepiece
        except ImportError:
            raise ImportError("translating here needs ctranslate2: pip install 'clipita[translate]'") from None
        if settings.glossary:
            raise ValueError("ctranslate2 has no glossaries: leave the glossary out, or use deepl")
        folder = _converted(settings.model)
        one = folder / "sentencepiece.bpe.model"
        source, target = (one, one) if one.is_file() else (folder / "source.spm", folder / "target.spm")
        if not source.is_file() or not target.is_file():
            raise ValueError(
                f"{folder} has neither source.spm and target.spm nor sentencepiece.bpe.model beside model.bin"
            )
        self._source = sentencepiece.SentencePieceProcessor(model_file=str(source))
        self._target = sentencepiece.SentencePieceProcessor(model_file=str(target))
        self._before, self._prefix = _tokens(folder, settings)
        self._beams = settings.beams
        self._translator: Any = ctranslate2.Translator(str(folder), device="cpu", intra_threads=threads)
        self.identity = (_digest(folder), str(settings.beams), settings.source, settings.target)

    def translate(self, texts: Sequence[str]) -> list[str | Failure]:
        """Translate texts, as `clipita_train.data.pairs.translate.Engine` describes."""
        pieces: list[list[str]] = [self._source.encode(text, out_type=str) for text in texts]
        results: list[str | Failure] = [Failure(f"more than {self.longest_text} pieces")] * len(texts)
        fit = [i for i, text in enumerate(pieces) if len(text) <= self.longest_text]
        answers = self._translator.translate_batch(
            [[*self._before, *pieces[i], "</s>"] for i in fit],
            target_prefix=[self._prefix] * len(fit) if self._prefix else None,
            beam_size=self._beams,
            max_batch_size=4096,
            batch_type="tokens",
            max_input_length=0,
            min_decoding_length=0,  # the default of 1 would force a piece where the model gives none
            max_decoding_length=self.longest_translation,
        )
        for i, answer in zip(fit, answers, strict=True):
            tokens = answer.hypotheses[0][len(self._prefix) :]
            text = self._target.decode(tokens).strip()
            if len(tokens) >= self.longest_translation - len(self._prefix):
                results[i] = Failure("a translation without end")
            else:
                results[i] = text or Failure("an empty translation")
        return results


def _converted(model: str) -> Path:
    """Return the folder of a model in CTranslate2's format, from the hub if it is not on this machine."""
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        name, _, revision = model.partition("@")
        try:
            patterns = ["*.bin", "*.json", "*.spm", "*.model"]
            folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(f"{model!r} is no folder, and does not come from the hub: {error}") from error
    if not (folder / "model.bin").is_file():
        raise ValueError(f"{model} is not in CTranslate2's format. Convert it, with PyTorch: {_CONVERT.format(model)}")
    return folder


def _tokens(folder: Path, settings: EngineSettings) -> tuple[list[str], list[str]]:
    """Return the tokens that a source and a translation begin with, by which multilingual models know the languages."""
    vocabulary = set[str]()
    for path in sorted(folder.glob("*vocabulary.json")):
        vocabulary |= set(json.loads(path.read_text(encoding="utf-8")))
    codes = []
    for code in (settings.source, settings.target):
        long = _LANGUAGES.get(code, code)
        tokens = (f"{long}_Latn", f"__{code}__", f">>{long}<<")  # NLLB, M2M100, OPUS-MT
        codes.append(next((token for token in tokens if token in vocabulary), None))
    source, target = codes
    of_many = source is not None or any(token.startswith(">>") and token.endswith("<<") for token in vocabulary)
    if target is None and not of_many:  # the model has only two languages
        return [], []
    if target is not None and target.startswith(">>"):  # the model has several target languages
        return [target], []
    if source is None or target is None:
        unknown = settings.source if source is None else settings.target
        raise ValueError(f"the model in {folder} knows no language {unknown!r}")
    return [source], [target]


def _digest(folder: Path) -> str:
    """Return a hash of all files that decide the translations of a model."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".bin", ".json", ".spm", ".model"):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
