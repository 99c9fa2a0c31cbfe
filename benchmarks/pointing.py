"""Judge `Model.locate` by the pointing game: does the highest value fall on the thing that was asked for?

    git clone https://github.com/lightly-ai/coco128_yolo coco128
    python -m benchmarks.pointing coco128

The photographs are those of the first 128 of COCO's train2017 and val2017 that the collection holds, with boxes. One
collection that clipita-mini is trained on takes sports from COCO; the one photograph that both have is left out. Asked
is every kind of thing in a photograph, by its Italian name, if a box of it lies in the part that the model sees. "Hard"
are those questions whose boxes take less than a quarter of that part. In collages two or four photographs share a
square, and asked is what one of them alone shows.
Chance is what a point anywhere would hit.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from clipita_train.intervals import estimates
from PIL import Image

import clipita
from benchmarks.tools.measure import PHOTOS, Figures, publish
from clipita.locate.location import Location
from clipita.text.italian import with_article

METHODS = ("exact", "patches", "occlusion")
# COCO's 80 kinds of things, in their order.
NAMES = (
    "persona", "bicicletta", "automobile", "motocicletta", "aereo", "autobus", "treno", "camion", "barca", "semaforo",
    "idrante", "segnale di stop", "parchimetro", "panchina", "uccello", "gatto", "cane", "cavallo", "pecora", "mucca",
    "elefante", "orso", "zebra", "giraffa", "zaino", "ombrello", "borsetta", "cravatta", "valigia", "frisbee", "sci",
    "snowboard", "pallone", "aquilone", "mazza da baseball", "guantone da baseball", "skateboard", "tavola da surf",
    "racchetta da tennis", "bottiglia", "calice", "tazza", "forchetta", "coltello", "cucchiaio", "ciotola", "banana",
    "mela", "panino", "arancia", "broccolo", "carota", "hot dog", "pizza", "ciambella", "torta", "sedia", "divano",
    "pianta in vaso", "letto", "tavolo da pranzo", "gabinetto", "televisore", "computer portatile", "mouse",
    "telecomando", "tastiera", "cellulare", "forno a microonde", "forno", "tostapane", "lavandino", "frigorifero",
    "libro", "orologio", "vaso", "forbici", "orsacchiotto", "asciugacapelli", "spazzolino",
)  # fmt: skip
_TRAINED_ON = "000000000544"
_SIDE = 384  # pixels of a collage
_COLLAGES = 100  # of each kind

Box = tuple[float, float, float, float]  # left, top, right, bottom, as parts of the picture


class Question(NamedTuple):
    """Asks for one thing in one picture.

    Attributes:
        picture: Its number, by which questions belong together.
        kind: "all" or the number of photographs in a collage.
        image: The picture.
        name: What is asked for.
        boxes: Where it is.
        seen: The part that the model sees.
    """

    picture: int
    kind: str
    image: Image.Image
    name: str
    boxes: list[Box]
    seen: Box

    def share(self) -> float:
        """Return how much of the seen part the boxes take: what chance hits."""
        left, top, right, bottom = self.seen
        cells = (np.arange(200) + 0.5) / 200
        x, y = left + cells * (right - left), top + cells * (bottom - top)
        covered = np.zeros((200, 200), bool)
        for box in self.boxes:
            covered |= ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))[None]
        return float(covered.mean())

    def is_hit(self, point: tuple[float, float]) -> bool:
        """Tell whether a point is in a box."""
        return any(box[0] <= point[0] < box[2] and box[1] <= point[1] < box[3] for box in self.boxes)


def photographs(folder: Path) -> Iterator[tuple[Image.Image, dict[str, list[Box]]]]:
    """Yield each photograph with its boxes, by the name of what is in them."""
    for path in sorted((folder / "images").rglob("*.jpg")):
        labels = folder / "object_detection" / "labels" / path.parent.name / f"{path.stem}.txt"
        if not labels.is_file() or path.stem == _TRAINED_ON:
            continue
        boxes: dict[str, list[Box]] = {}
        for line in labels.read_text(encoding="ascii").splitlines():
            kind, x, y, width, height = line.split()
            middle, half = np.array([float(x), float(y)]), np.array([float(width), float(height)]) / 2
            left, top, right, bottom = *(middle - half), *(middle + half)
            boxes.setdefault(NAMES[int(kind)], []).append((float(left), float(top), float(right), float(bottom)))
        if boxes:
            with Image.open(path) as image:
                yield image.convert("RGB"), boxes


def middle_square(image: Image.Image) -> Box:
    """Return the part of a photograph that is its middle square."""
    across, down = (min(image.size) / length / 2 for length in image.size)
    return 0.5 - across, 0.5 - down, 0.5 + across, 0.5 + down


def questions(folder: Path, limit: int | None) -> Iterator[Question]:
    """Yield all questions, of photographs and then of collages."""
    found = list(photographs(folder))[:limit]
    for number, (image, boxes) in enumerate(found):
        seen = middle_square(image)
        for name, places in boxes.items():
            asked = Question(number, "photographs", image, name, places, seen)
            if asked.share() > 0:
                yield asked
    random = np.random.default_rng(0)
    for count in (2, 4):
        for number in range(_COLLAGES if limit is None else limit):
            chosen = [found[place] for place in random.choice(len(found), count, replace=False)]
            yield from _of_collage(number, chosen)


def _of_collage(number: int, chosen: list[tuple[Image.Image, dict[str, list[Box]]]]) -> Iterator[Question]:
    across, down = (2, 1) if len(chosen) == 2 else (2, 2)
    cell = (_SIDE // across, _SIDE // down)
    collage = Image.new("RGB", (_SIDE, _SIDE))
    parts: list[Box] = []
    for place, (image, _) in enumerate(chosen):
        row, column = divmod(place, across)
        scale = max(cell[0] / image.width, cell[1] / image.height)
        resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = (resized.width - cell[0]) // 2, (resized.height - cell[1]) // 2
        collage.paste(resized.crop((left, top, left + cell[0], top + cell[1])), (column * cell[0], row * cell[1]))
        parts.append((column / across, row / down, (column + 1) / across, (row + 1) / down))
    for place, (image, boxes) in enumerate(chosen):
        across_seen, down_seen = (part / max(cell[0] / image.width, cell[1] / image.height) for part in cell)
        seen = (
            0.5 - across_seen / image.width / 2, 0.5 - down_seen / image.height / 2,
            0.5 + across_seen / image.width / 2, 0.5 + down_seen / image.height / 2,
        )  # fmt: skip
        for name, places in boxes.items():
            is_elsewhere = any(name in other for at, (_, other) in enumerate(chosen) if at != place)
            # It fills a tenth of the photograph's part, so that the collage shows it.
            if not is_elsewhere and Question(0, "", image, name, places, seen).share() >= 0.1:
                yield Question(
                    number, f"collages of {len(chosen)}", collage, name, [parts[place]], (0.0, 0.0, 1.0, 1.0)
                )


def measure(folder: Path, limit: int | None, model: clipita.Model) -> Figures:
    """Play the game by every method that the model allows."""
    asked = list(questions(folder, limit))
    groups: dict[tuple[str, int], list[Question]] = {}
    for question in asked:
        groups.setdefault((question.kind, question.picture), []).append(question)
    hits: list[list[float]] = []
    numbers: list[int] = []
    kinds: list[str] = []
    is_hard: list[bool] = []
    methods = [method for method in METHODS if _is_allowed(model, method)]
    for number, ((kind, _), group) in enumerate(groups.items()):
        image = group[0].image
        texts = [with_article(question.name) for question in group]
        places: list[list[Location]] = [model.locate(image, texts, method=method) for method in methods]  # type: ignore[arg-type]
        for index, question in enumerate(group):
            points = [row[index].peak for row in places]
            share = question.share()
            hits.append(
                [*(float(question.is_hit(point)) for point in points), share, float(question.is_hit((0.5, 0.5)))]
            )
            numbers.append(number)
            kinds.append(kind)
            is_hard.append(share < 0.25)
    table: dict[str, dict[str, object]] = {}
    values, of_picture = np.array(hits), np.array(numbers)
    subsets = {kind: np.array([each == kind for each in kinds]) for kind in dict.fromkeys(kinds)}
    subsets["photographs, hard"] = subsets["photographs"] & np.array(is_hard)
    for name in ("photographs", "photographs, hard", "collages of 2", "collages of 4"):
        chosen = subsets[name]
        _, renumbered = np.unique(of_picture[chosen], return_inverse=True)
        found = estimates(values[chosen], renumbered)
        columns = [*methods, "chance", "center"]
        table[name] = {
            "questions": int(chosen.sum()),
            **{column: [each.value, each.low, each.high] for column, each in zip(columns, found, strict=True)},
        }
    cost = {method: _cost(model, method) for method in methods}
    return {
        "model": model.name, "fingerprint": model.fingerprint, "methods": methods, "table": table, "cost": cost,
    }  # fmt: skip


def _cost(model: clipita.Model, method: str) -> float:
    """Return the CPU time of a map, as a multiple of that of embedding the photograph and the text."""
    photograph, text = PHOTOS[0].read_bytes(), "il gatto"
    taken: dict[str, list[float]] = {"embed": [], "locate": []}
    for _ in range(31 if method != "occlusion" else 5):
        begun = time.process_time()
        model.encode_image(photograph)
        model.encode_text(text)
        between = time.process_time()
        model.locate(photograph, text, method=method)  # type: ignore[call-overload]
        taken["embed"].append(between - begun)
        taken["locate"].append(time.process_time() - between)
    return statistics.median(taken["locate"]) / statistics.median(taken["embed"])


def _is_allowed(model: clipita.Model, method: str) -> bool:
    try:
        model.locate(Image.new("RGB", (64, 64)), "un gatto", method=method)  # type: ignore[call-overload]
    except clipita.BackendError:
        return False
    return True


def markdown(report: Figures) -> str:
    """Return the table."""
    columns = [*report["methods"], "chance", "center"]
    lines = [
        "# The pointing game",
        "",
        f"How often the highest value of `Model.locate` of {report['model']} falls on the thing that was asked for, in "
        "per cent, with 95 % intervals over pictures. `benchmarks/pointing.py` says what is asked.",
        "",
        "| | questions | " + " | ".join(columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for name, row in report["table"].items():
        cells = [f"{100 * row[c][0]:.1f} ({100 * row[c][1]:.1f} to {100 * row[c][2]:.1f})" for c in columns]
        lines.append(f"| {name} | {row['questions']} | {' | '.join(cells)} |")
    costs = ", ".join(f"{method} {cost:.2f}" for method, cost in report["cost"].items())
    lines += ["", f"CPU time, as a multiple of that of embedding the photograph and the text: {costs}."]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Play the pointing game.")
    parser.add_argument("folder", type=Path, help="the clone of coco128_yolo")
    parser.add_argument("--limit", type=int, help="take only so many photographs and collages")
    parser.add_argument("--model", default="clipita-mini")
    arguments = parser.parse_args()
    publish("pointing", partial(measure, arguments.folder, arguments.limit, clipita.load(arguments.model)), markdown)
