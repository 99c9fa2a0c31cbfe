"""Say which part of a picture each square shows that a tower reads."""

from typing import NamedTuple, TypeAlias, assert_never

from clipita.images.geometry import View, fitted_size, shortest_layout, tile_boxes
from clipita.images.rules import Preprocessing
from clipita.system.arrays import Pixels

# Left, top, right and bottom, as parts of the picture's width and height; below 0 or above 1 beside the picture.
Box: TypeAlias = tuple[float, float, float, float]


class Seen(NamedTuple):
    """Holds the squares that a tower reads of a picture, and what part of it each shows.

    Attributes:
        squares: (T, S, S, 3) uint8.
        boxes: T of them.
    """

    squares: Pixels
    boxes: list[Box]


def square_box(size: tuple[int, int], preprocessing: Preprocessing) -> Box:
    """Return the part of a picture of (width, height) that its one square shows."""
    side = preprocessing.image_size
    match preprocessing.resize:
        case "shortest":
            short_side = preprocessing.short_side or side
            (width, height), (left, top) = shortest_layout(size, short_side, side, preprocessing.crop)
        case "longest":
            width, height = fitted_size(size, side)
            left, top = -((side - width) // 2), -((side - height) // 2)
        case "squash":
            return 0.0, 0.0, 1.0, 1.0
        case _:
            assert_never(preprocessing.resize)
    return left / width, top / height, (left + side) / width, (top + side) / height


def boxes_of_tiles(view: View) -> list[Box]:
    """Return the parts of a picture that its tiles show."""
    left, top, right, bottom = view.box
    width, height = right - left, bottom - top
    return [
        ((x - left) / width, (y - top) / height, (end_x - left) / width, (end_y - top) / height)
        for x, y, end_x, end_y in tile_boxes(view)
    ]
