"""What a data set is made of: frozen dataclasses that a recipe fills in. `clipita-train data build` makes it."""

from dataclasses import dataclass
from typing import Literal

from clipita_train.data.pairs.engines import EngineSettings
from clipita_train.engine.config import check_choices, require

Reader = Literal[
    "wit", "conceptual_3m", "conceptual_12m", "json_lines", "mscoco_it", "sidecars", "table", "web_dataset"
]


@dataclass(frozen=True)
class Rules:
    """What is kept of a source. Limits are inclusive; None means no limit."""

    # A caption is dropped
    min_characters: int = 5
    max_characters: int = 1000
    min_words: int = 2
    min_letter_share: float = 0.5  # of the characters that are not space
    # From this probability on that it is in another language than its source is, if it has so many words: that drops
    # 94 % of English captions, 26 of MSCOCO-IT's 18,661, and 25 of 8,511 Italian labels (161 at 0.95 and one word).
    other_language: float | None = 0.99
    language_words: int = 3
    propn_share: float | None = None  # from this share of proper nouns on; 0.8 for the original's WIT
    min_score: float | None = None  # cosine with the photograph, by the recipe's `scorer`
    file_names: bool = True
    boilerplate: bool = True
    personal_data: bool = True
    copies: int | None = None  # captions that say nearly the same, of all sources, beyond this many
    # A photograph is dropped
    min_side: int = 32  # pixels
    max_pixels: int = 178_956_970  # what clipita reads by default
    max_aspect: float = 5.0  # longer side by shorter side

    def __post_init__(self) -> None:
        require(0 <= self.min_letter_share <= 1, "min_letter_share", "a share in [0, 1]", self.min_letter_share)
        require(self.max_aspect >= 1, "max_aspect", ">= 1", self.max_aspect)
        require(self.copies is None or self.copies >= 1, "copies", "None or >= 1", self.copies)


@dataclass(frozen=True)
class Source:
    """Files of one reader of `clipita_train.data.pairs`; which of the further settings count depends on the reader."""

    name: str
    reader: Reader
    files: tuple[str, ...]  # below the root; patterns such as "wit/*.tsv.gz"; for sidecars, folders
    images: str = ""  # the folder below the root that holds the photographs
    language: str = "it"
    licence: str | None = None  # None: as the reader says
    translated: bool = False  # from `language`, as the recipe's `translation` says
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
    """A set that no photograph or caption of training may come near; captions as `evaluate retrieval` reads them."""

    name: str
    captions: str  # a file below the root
    images: str | None = None  # their folder below the root; None: only captions are kept out
    format: str | None = None
    locale: str = "it"


@dataclass(frozen=True)
class DataRecipe:
    """Everything that decides what comes out, but for the files themselves."""

    name: str
    sources: tuple[Source, ...]  # of copies in several, the earliest source keeps its own
    evaluation: tuple[Evaluation, ...] = ()
    validation_share: float = 0.05
    near_bits: int = 4  # two photographs are near whose perceptual hashes differ by no more
    near_share: float = 0.8  # two captions are near that have this share of words and pairs of words in common
    evaluation_words: int = 6  # captions with fewer are in evaluation sets by chance
    concept_cap: int | None = None  # rows of one concept, about; see `clipita_train.data.captions.balance.balanced`
    chunk_rows: int = 1024  # what is computed, and after a kill computed again, at once
    shard_records: int = 4096
    tagger: str = "clipita"  # see clipita_train.data.captions.proper_nouns
    scorer: str = "clipita-mini"  # any model that `clipita.load` takes
    translation: EngineSettings | None = None
    translation_budget: int | None = None  # characters, over all runs; captions are then translated one chunk at a time
    max_side: int | None = 512  # of photographs that are downloaded, which are kept as JPEG; None: as they come
    web_dataset: bool = False  # also as tar files

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
