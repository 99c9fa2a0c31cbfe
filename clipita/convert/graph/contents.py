"""Find, without running an ONNX model, which files it reads and how large the tensors are that it builds.

A graph is a program. Here only tensors are found whose size is written in the graph. A tensor whose size the graph
computes, from the shape of its input or from constants by arithmetic, can still be of any size.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from clipita.convert.readers.wire import bytes_of, fields, number, text
from clipita.errors import CheckpointError

# For each message of onnx.proto, the numbers of the fields that lead to a tensor, and the kind of message in them.
_LEADS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_MAX_DEPTH = 64  # levels; an If in a Loop in a function has a dozen
# The graphs of ViT-H/14 and XLM-R large have 60,000 fields; to walk over a million takes a second.
_MAX_FIELDS = 1 << 20
_INT64 = 7  # TensorProto.DataType
_FEW = 64  # numbers; a shape, or two margins for each of its axes, has fewer

# Operators whose output has as many elements as the product of one of their inputs, and the index of that input.
_SIZED_BY = {
    "AffineGrid": 1, "BlackmanWindow": 0, "CenterCropPad": 1, "Col2Im": 1, "ConstantOfShape": 0, "Expand": 1,
    "HammingWindow": 0, "HannWindow": 0, "MaxUnpool": 2, "OneHot": 1, "Resize": 3, "Tile": 1,
}  # fmt: skip
# Operators that have their output's shape in an attribute.
_SHAPE_ATTRIBUTES = {"RandomNormal": "shape", "RandomUniform": "shape"}


@dataclass(frozen=True)
class ExternalData:
    """The place of a tensor's numbers: bytes `offset` to `offset + length` of a file; `length` may be unknown."""

    location: str
    offset: int
    length: int | None


@dataclass
class _Node:
    operator: str = ""
    inputs: list[str] = field(default_factory=list[str])
    outputs: list[str] = field(default_factory=list[str])
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Contents:
    """The findings of `graph_contents`.

    Attributes:
        external: The places of tensors that are kept in other files.
        built: The most elements of a tensor that the graph builds from constants.
        what: Which operator builds it.
    """

    external: list[ExternalData] = field(default_factory=list[ExternalData])
    built: int = 0
    what: str = ""


def graph_contents(model: memoryview) -> Contents:
    """Walk over the structure of a model. No tensor is read, and no other file is opened.

    Raises:
        CheckpointError: The model is damaged.
    """
    walk = _GraphWalk()
    walk.message(model, "Model", 0)
    return walk.contents()


class _GraphWalk:
    """Collect in one pass the places of tensors, the numbers of small ones, and the nodes that may make large ones."""

    def __init__(self) -> None:
        self.fields = 0
        self.external: list[ExternalData] = []
        self.constants: dict[str, list[list[int]]] = {}  # by name; an inner graph may use a name again
        self.nodes: list[_Node] = []
        self.built: list[tuple[int, str]] = []

    def counted(self, message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Yield the fields of a message, and count them against the limit."""
        for pair in fields(message):
            self.fields += 1
            if self.fields > _MAX_FIELDS:
                raise CheckpointError(f"its structure has more than {_MAX_FIELDS:,} fields")
            yield pair

    def message(self, message: memoryview, kind: str, depth: int) -> None:
        """Walk over a message of this kind, down to the tensors and nodes in it."""
        if depth > _MAX_DEPTH:
            raise CheckpointError(f"its graphs nest deeper than {_MAX_DEPTH} levels")
        leads = _LEADS[kind]
        for key, value in self.counted(message):
            match leads.get(key):
                case None:
                    continue
                case "Tensor":
                    name, numbers = self.tensor(bytes_of(value))
                    if numbers is not None and name:
                        self.constants.setdefault(name, []).append(numbers)
                case "Node":
                    self.node(bytes_of(value), depth + 1)
                case "SparseTensor":
                    self.sparse(bytes_of(value), depth + 1)
                case lead:
                    self.message(bytes_of(value), lead, depth + 1)

    def node(self, message: memoryview, depth: int) -> None:
        """Note a node whose output may be large, and walk over its attributes."""
        if depth > _MAX_DEPTH:
            raise CheckpointError(f"its graphs nest deeper than {_MAX_DEPTH} levels")
        made = _Node()
        for key, value in self.counted(message):
            match key:
                case 1:
                    made.inputs.append(text(value))
                case 2:
                    made.outputs.append(text(value))
                case 4:
                    made.operator = text(value)
                case 5:
                    name, numbers = self.attribute(bytes_of(value), depth + 1)
                    made.attributes[name] = numbers
                case _:
                    continue
        if made.operator == "EPContext":  # a program for one device, in a file that it names
            raise CheckpointError("it holds a program for another device (EPContext)")
        if made.operator == "Constant" and made.outputs:
            for numbers in made.attributes.values():
                if numbers is not None:
                    self.constants.setdefault(made.outputs[0], []).append(numbers)
        elif made.operator in _SIZED_BY or made.operator in _SHAPE_ATTRIBUTES or made.operator in ("Range", "Pad"):
            self.nodes.append(made)

    def attribute(self, message: memoryview, depth: int) -> tuple[str, list[int] | None]:
        """Return an attribute's name, and its whole numbers if they are few."""
        name, numbers = "", list[int]()
        for key, value in self.counted(message):
            match key:
                case 1:
                    name = text(value)
                case 3:
                    numbers.append(number(value))
                case 8:
                    numbers += _varints(value)
                case 5 | 10:
                    found = self.tensor(bytes_of(value))[1]
                    numbers += found or []
                case 6 | 11:
                    self.message(bytes_of(value), "Graph", depth + 1)
                case 22 | 23:
                    self.sparse(bytes_of(value), depth + 1)
                case _:
                    continue
        return name, numbers if 0 < len(numbers) <= _FEW else None

    def sparse(self, message: memoryview, depth: int) -> None:
        """Note a sparse tensor by its dense size: ONNX Runtime makes it dense when it loads it."""
        sizes: list[int] = []
        for key, value in self.counted(message):
            if key in (1, 2):
                self.tensor(bytes_of(value))
            elif key == 3:
                sizes += _varints(value)
        self.built.append((_product(sizes), "a sparse tensor"))

    def tensor(self, message: memoryview) -> tuple[str, list[int] | None]:
        """Note where a tensor lies; return its name, and its numbers if they are few and int64."""
        name, kind, sizes, numbers = "", 0, list[int](), list[int]()
        entries: dict[str, str] = {}
        for key, value in self.counted(message):
            match key:
                case 1:
                    sizes += _varints(value)
                case 2:
                    kind = number(value)
                case 7:
                    if isinstance(value, int) or len(value) <= 10 * _FEW:
                        numbers += _varints(value)
                case 8:
                    name = text(value)
                case 9:
                    raw = bytes_of(value)
                    if len(raw) <= 8 * _FEW and len(raw) % 8 == 0:
                        numbers = list(struct.unpack(f"<{len(raw) // 8}q", raw))
                case 13:
                    entry = dict(self.counted(bytes_of(value)))  # StringStringEntryProto: 1 the key, 2 the value
                    held = text(entry.get(2, memoryview(b"")))
                    label = text(entry.get(1, memoryview(b"")))
                    if label == "location":  # may be named twice; each counts, since it is not known which one is used
                        self.external.append(ExternalData(held, 0, None))
                    entries[label] = held
                case _:
                    continue
        if "location" in entries:
            length = _whole(entries["length"]) if "length" in entries else None
            self.external[-1] = ExternalData(entries["location"], _whole(entries.get("offset", "0")), length)
        return name, numbers if kind == _INT64 and 0 < len(numbers) <= _FEW else None

    def contents(self) -> Contents:
        """Return what was found."""
        for node in self.nodes:
            self.built.append((self._size(node), node.operator))
        largest = max(self.built, default=(0, ""))
        return Contents(self.external, sum(size for size, _ in self.built), largest[1])

    def _size(self, node: _Node) -> int:
        """Return the most elements that a node's output has by its constants; 0 if they do not tell."""
        if node.operator in _SHAPE_ATTRIBUTES:
            return _product(node.attributes.get(_SHAPE_ATTRIBUTES[node.operator]) or [])
        if node.operator == "Range":
            bounds = [self._constants(node, place) for place in range(3)]
            if not all(bounds):
                return 0
            start, end, step = (values[-1][0] for values in bounds)
            return max(0, -(-(end - start) // step)) if step else 0
        if node.operator == "Pad":
            margins = self._constants(node, 1) or [node.attributes.get("pads") or []]
            return max(math.prod(1 + max(0, margin) for margin in values) if values else 0 for values in margins)
        return max(map(_product, self._constants(node, _SIZED_BY[node.operator])), default=0)

    def _constants(self, node: _Node, place: int) -> list[list[int]]:
        return self.constants.get(node.inputs[place], []) if place < len(node.inputs) else []


def _varints(value: int | memoryview) -> list[int]:
    """Return the numbers of one entry of a repeated field, which may be packed."""
    if isinstance(value, int):
        return [number(value)]
    if len(value) > 10 * _FEW:
        return []
    # Packed numbers are varints without tags; others come as an int, one entry each.
    found: list[int] = []
    position = 0
    while position < len(value):
        end = position
        while end < len(value) and value[end] >= 0x80:
            end += 1
        if end == len(value) or end - position > 9:
            raise CheckpointError("it ends in the middle of a number")
        packed = sum((value[position + index] & 0x7F) << 7 * index for index in range(end - position + 1))
        found.append(number(packed & (1 << 64) - 1))
        position = end + 1
    return found


def _product(sizes: list[int]) -> int:
    """Return the number of elements of a shape; dimensions that are unknown (below 1) count as 1."""
    return min(math.prod(size for size in sizes if size > 0), 1 << 62) if sizes else 0


def _whole(value: str) -> int:
    """Return the number that a text holds, -1 if it holds none."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else -1
