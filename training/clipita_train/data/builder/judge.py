"""Apply the rules of a source to each row by itself, and say why a row or a caption is dropped.

The reason "" means that it is kept so far.
"""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from clipita_train.data.builder.recipe import Rules
from clipita_train.data.builder.steps import Function, Step, nested

NO_CAPTION = "no caption is left"
PHOTOGRAPH_COLUMNS = ("download", "width", "height", "problem")
CAPTION_COLUMNS = (
    "characters",
    "words",
    "letter_share",
    "file_name",
    "boilerplate",
    "personal_data",
    "caption_language",
    "language_probability",
)


@dataclass(frozen=True)
class Judge(Step):
    """The rules of one source, as a step."""

    rules: Rules
    language: str
    name: ClassVar[str] = "judge"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ("download", "text", "images", "propn", "scores")

    def columns(self) -> tuple[str, ...]:
        """Return the columns to read; those of models only where there are rules for them."""
        return (*PHOTOGRAPH_COLUMNS, "captions", *self._caption_columns)

    @property
    def _caption_columns(self) -> tuple[str, ...]:
        judged = {"propn_share": self.rules.propn_share, "score": self.rules.min_score}
        return (*CAPTION_COLUMNS, *(name for name, limit in judged.items() if limit is not None))

    def load(self) -> Function:
        """Return the function."""
        return self._function

    def _function(self, table: pa.Table) -> pa.Table:
        columns = {name: table[name].to_pylist() for name in self.columns()}
        reasons, caption_reasons = list[str](), list[str]()
        for row in range(len(table)):
            names = self._caption_columns
            values = zip(*(columns[name][row] for name in names), strict=True)
            of_captions = [self._caption(**dict(zip(names, one, strict=True))) for one in values]
            problem = self._photograph(*(columns[name][row] for name in PHOTOGRAPH_COLUMNS))
            reasons.append(problem or ("" if "" in of_captions else NO_CAPTION))
            caption_reasons += of_captions
        nested_reasons = nested(table, {"caption_reasons": pa.array(caption_reasons, pa.string())})
        return nested_reasons.append_column("reason", pa.array(reasons, pa.string()))

    def _photograph(self, download: str | None, width: int | None, height: int | None, problem: str | None) -> str:
        if download not in (None, "ok"):
            return f"download: {download}"
        if problem is not None or width is None or height is None:
            return "the photograph cannot be read"
        if min(width, height) < self.rules.min_side:
            return "the photograph is too small"
        if width * height > self.rules.max_pixels:
            return "the photograph is too large"
        if max(width, height) > self.rules.max_aspect * min(width, height):
            return "the photograph is too narrow"
        return ""

    def _caption(
        self,
        characters: int,
        words: int,
        letter_share: float,
        file_name: bool,
        boilerplate: bool,
        personal_data: str,
        caption_language: str,
        language_probability: float,
        propn_share: float = 0.0,
        score: float = 1.0,
    ) -> str:
        rules = self.rules
        sure = rules.other_language is not None and language_probability >= rules.other_language
        long = words >= rules.language_words
        for dropped, reason in (
            (not characters, "not translated"),
            (characters < rules.min_characters or words < rules.min_words, "too short"),
            (characters > rules.max_characters, "too long"),
            (rules.file_names and file_name, "the name of a file"),
            (letter_share < rules.min_letter_share, "too few letters"),
            (rules.boilerplate and boilerplate, "boilerplate"),
            (rules.personal_data and bool(personal_data), "personal data"),
            (sure and long and caption_language != self.language, "another language"),
            (rules.propn_share is not None and propn_share >= rules.propn_share, "proper nouns"),
            (rules.min_score is not None and not score >= rules.min_score, "does not fit the photograph"),
        ):
            if dropped:
                return reason
        return ""
