import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from clipita_train.cli import main
from clipita_train.data.audit.agreement import audit
from clipita_train.data.audit.sheet import Item, draw, read_items, read_marks, write_sheet

PAIRS = [(f"a photograph of number {i}", f"una fotografia del numero {i}") for i in range(300)]


def data_audit(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["data", "audit", *map(str, arguments)])
    assert not isinstance(result.exception, Exception), result.exception
    return result.output


def jsonl(path: Path, pairs: list[tuple[str, str]] = PAIRS) -> Path:
    path.write_text("".join(json.dumps({"original": en, "caption": it}) + "\n" for en, it in pairs), encoding="utf-8")
    return path


def rated(sheet: Path, out: Path, marks: list[str], delimiter: str = ",") -> Path:
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with out.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows({**row, "mark": mark} for row, mark in zip(rows, marks, strict=True))
    return out


def items(path: Path, caption: str = "caption", original: str | None = "original") -> list[Item]:
    return list(read_items(path, caption_column=caption, original_column=original))


def test_the_same_are_drawn_from_any_order_and_format(tmp_path: Path) -> None:
    lines = items(jsonl(tmp_path / "a.jsonl"))
    drawn = draw(iter(lines), 100)
    assert len({item.id for item in drawn}) == 100
    assert draw(iter(lines[::-1] + lines), 100) == drawn != draw(iter(lines), 100, seed=1)

    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("original", "caption"), *PAIRS])
    pq.write_table(
        pa.table(
            {
                "captions": [[it for _, it in PAIRS[:200]], [it for _, it in PAIRS[200:]], ["scartata"]],
                "originals": [[en for en, _ in PAIRS[:200]], [en for en, _ in PAIRS[200:]], ["dropped"]],
                "reason": ["", "", "language"],
            }
        ),
        tmp_path / "manifest.parquet",
    )
    assert draw(iter(items(tmp_path / "a.csv")), 100) == drawn
    assert draw(iter(items(tmp_path / "manifest.parquet", "captions", "originals")), 100) == drawn


def test_the_sheet_as_raters_get_it(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    write_sheet([Item("1", "", 'È "così", no?')], sheet)
    assert sheet.read_bytes().startswith(b"\xef\xbb\xbfitem,original,caption,mark\r\n")
    with pytest.raises(ValueError, match="expected 2 different captions to draw from, found 1"):
        draw(iter([Item("1", "", "a"), Item("1", "", "a"), Item("2", "", "")]), 2)


def test_from_captions_to_agreement(tmp_path: Path) -> None:
    captions, sheet = jsonl(tmp_path / "captions.jsonl"), tmp_path / "sheet.csv"
    draw_it = ("draw", captions, "--caption", "caption", "--original", "original", "-n", 60, "--out", sheet)
    assert "60 captions to be marked" in data_audit(*draw_it)
    assert "is there already" in data_audit(*draw_it)

    rng = np.random.default_rng(0)
    marks = np.clip(rng.integers(2, 5, (60, 1)) + rng.integers(-1, 2, (60, 3)), 1, 4).astype(float)
    marks[7, 1] = np.nan
    texts = [["" if np.isnan(mark) else f"{mark:g}" for mark in column] for column in marks.T]
    sheets = [rated(sheet, tmp_path / f"{i}.csv", column, ";" if i else ",") for i, column in enumerate(texts)]
    with sheets[2].open(encoding="utf-8-sig") as file:  # a rater sorted their sheet
        header, *rows = file.readlines()
    sheets[2].write_text(header + "".join(sorted(rows)), encoding="utf-8")

    _, read = read_marks(sheets)
    assert np.array_equal(read, marks, equal_nan=True)
    expected = audit(marks, [1, 2, 3, 4])
    output = data_audit("score", *sheets)
    assert "60 captions, 3 raters, 1 marks missing" in output
    assert f"mean {expected.mean.value:.2f} [{expected.mean.low:.2f}, {expected.mean.high:.2f}] of 4" in output
    assert f"ordinal weights {expected.agreement.value:.3f} [" in output
    assert len(output.splitlines()) == 9


def test_one_sheet_with_a_column_for_each_rater(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("item,caption,mark,mark 2\nx,uno,4,3\ny,due,,1\n")
    found, marks = read_marks([sheet])
    assert [item.caption for item in found] == ["uno", "due"]
    assert np.array_equal(marks, [[4, 3], [np.nan, 1]], equal_nan=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item,mark\nx,4\ny,buono\n", "the mark 'buono' of item 'y' is not a number"),
        ("item,mark\nx,4\nz,4\n", "2 items differ from those of .*first.csv, such as 'y'"),
        ("item,mark\nx,4\nx,4\n", "with each item once"),
        ("item,caption\nx,uno\n", "columns? .*called 'mark...'"),
        ("", "expected a column 'item'"),
        ("item,mark\nx,9\ny,4\n", "a mark of 9.0 is not on the scale 1, 2, 3, 4"),
    ],
)
def test_sheets_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "first.csv").write_text("item,mark\nx,4\ny,4\n")
    (tmp_path / "second.csv").write_text(text)
    output = data_audit("score", tmp_path / "first.csv", tmp_path / "second.csv")
    assert output.startswith("Error: ")
    assert re.search(message, output)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl")
    out = tmp_path / "s.csv"
    assert "row 1 has no column 'captions'; it has: original, caption" in data_audit("draw", path, "--out", out)
    other = tmp_path / "a.txt"
    other.write_text("x")
    assert "expected .csv, .jsonl or .parquet" in data_audit("draw", other, "--out", out)
