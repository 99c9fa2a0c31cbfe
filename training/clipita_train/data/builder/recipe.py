"""Data recipes: dataclasses that say what a data set is made of. `clipita-train data build` builds it."""

from dataclasses import dataclass
from typing import Literal

from clipita_train.data.pairs.engines import EngineSettings
from clipita_train.engine.config import check_choices, require

Reader = Literal[
    "wit", "conceptual_3m", "conceptual_12m", "json_lines", "mscoco_it", "sidecars", "table", "web_dataset"
]


@dataclass(frozen=True)
class Rules:
    """The rules by which rows and captions of a source are kept. Limits are inclusive; None means no limit."""

    # Rules for captions
    min_characters: int = 5
    max_characters: int = 1000
    min_words: int = 2
    min_letter_share: float = 0.5  # of the characters that are not spaces
    # A caption of at least `language_words` words is dropped if with this probability it is not in the language of its
    # source. That drops 94 % of English captions, 26 of the 18,661 captions of MSCOCO-IT, and 25 of 8,511 Italian
    # labels (161 at a probability of 0.95 and one word).
    other_language: float | None = 0.99
    language_words: int = 3
    propn_share: float | None = (
        None  # a caption with this share of proper nouns is dropped; CLIP-Italian had 0.8 for WIT
    )
    min_score: float | None = None  # cosine with the photograph, by the recipe's `scorer`
    file_names: bool = True
    boilerplate: bool = True
    personal_data: bool = True
    copies: int | None = None  # how many captions, of all sources, may say nearly the same
    # Rules for photographs
    min_side: int = 32  # pixels
    max_pixels: int = 178_956_970  # the limit of clipita
    max_aspect: float = 5.0  # longer side by shorter side

    def __post_init__(self) -> None:
        require(0 <= self.min_letter_share <= 1, "min_letter_share", "a share in [0, 1]", self.min_letter_share)
        require(self.max_aspect >= 1, "max_aspect", ">= 1", self.max_aspect)
        require(self.copies is None or self.copies >= 1, "copies", "None or >= 1", self.copies)


@dataclass(frozen=True)
class Source:
    """Files that one reader of `clipita_train.data.pairs` reads; some settings are for some readers only."""

    name: str
    reader: Reader
    files: tuple[str, ...]  # paths below the root, or patterns such as "wit/*.tsv.gz"; for sidecars, folders
    images: str = ""  # the folder below the root that holds the photographs
    language: str = "it"
    licence: str | None = None  # None: the license that the reader states
    translated: bool = False  # whether captions are translated from `language`, by the engine of the recipe
    rules: Rules = Rules()
    wit_captions: tuple[str, ...] = ("reference",)
    image_column: str = "image"
    caption_column: str = "caption"

    def __post_init__(self) -> None:
        check_choices(self)
        require(bool(self.name) and "/" not in self.name, "name", "a name without a slash", self.name)
        require(bool(self.files), "files", "at least one file or pattern", self.files)
        own = self.reader in ("wit", "conceptual_3m", "conceptual_12m", "mscoco_it")
        require(own or self.licence is not None, "licence", f"given for the reader {self.reader}", self.licence)


@dataclass(frozen=True)
class Evaluation:
    """A set that training data must not contain, neither its photographs nor its captions, not even near copies."""

    name: str
    captions: str  # a file below the root
    images: str | None = None  # the folder of its photographs below the root; None: only captions are compared
    format: str | None = None
    locale: str = "it"


@dataclass(frozen=True)
class DataRecipe:
    """Everything that decides what is in the data set, except the files themselves."""

    name: str
    sources: tuple[Source, ...]  # of copies in several sources, that of the earliest is kept
    evaluation: tuple[Evaluation, ...] = ()
    validation_share: float = 0.05
    near_bits: int = 4  # photographs are near if their perceptual hashes differ by at most so many bits
    near_share: float = 0.8  # captions are near if they share so much of their words and pairs of words
    evaluation_words: int = 6  # shorter captions are not compared with evaluation sets, which have them by chance
    concept_cap: int | None = None  # about how many rows a concept keeps, see `captions.balance.balanced`
    chunk_rows: int = 1024  # rows of one unit of work; if it is interrupted, it is done again
    shard_records: int = 4096
    tagger: str = "clipita"  # see clipita_train.data.captions.proper_nouns
    scorer: str = "clipita-mini"  # any model that `clipita.load` takes
    translation: EngineSettings | None = None
    translation_budget: int | None = None  # characters, over all runs; with a budget chunks are translated one by one
    max_side: int | None = 512  # downloaded photographs are reduced to this and kept as JPEG; None: kept as they come
    web_dataset: bool = False  # write tar files too

    def __post_init__(self) -> None:
        names = [part.name for part in (*self.sources, *self.evaluation)]
        require(len(set(names)) == len(names), "names", "different from one another", names)
        require(bool(self.sources), "sources", "at least one", self.sources)
        known = None if self.translation is None else self.translation.source
        for source in self.sources:
            if source.translated:
                require(source.language == known, "translation", f"given, from {source.language!r}", self.translation)
        require(0 <= self.validation_share < 1, "validation_share", "a share in [0, 1)", self.validation_share)
        require(0 <= self.near_bits <= 16, "near_bits", "from 0 to 16", self.near_bits)
        require(
            0.7 <= self.near_share <= 1, "near_share", "from 0.7, below which pairs are missed, to 1", self.near_share
        )
        require(self.concept_cap is None or self.concept_cap >= 1, "concept_cap", "None or >= 1", self.concept_cap)
        require(self.chunk_rows >= 1, "chunk_rows", ">= 1", self.chunk_rows)
        require(self.shard_records >= 1, "shard_records", ">= 1", self.shard_records)
