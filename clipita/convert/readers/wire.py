"""Find the fields in messages of Protocol Buffers' wire format, without copying them.

A field that holds bytes, text or another message is a view of the data given. Source: protobuf.dev, "Encoding".
"""

import struct
from collections.abc import Iterator

from clipita.errors import CheckpointError


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (number, value) of each field in order; the value is an int for a varint, else a view of the bytes.

    Raises:
        CheckpointError: The message is cut short, or is no message.
    """
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        match tag & 7:
            case 0:
                value, position = _varint(message, position)
                yield tag >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, position = _varint(message, position)
            case 5:
                length = 4
            case other:
                raise CheckpointError(f"a field has the unknown wire type {other}")
        if length > len(message) - position:
            raise CheckpointError(f"{length} bytes are said to follow, where {len(message) - position} are left")
        yield tag >> 3, message[position : position + length]
        position += length


def text(value: int | memoryview) -> str:
    """Decode a field that is a string."""
    try:
        return bytes_of(value).tobytes().decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"a text is not UTF-8: {error}") from None


def number(value: int | memoryview) -> int:
    """Decode a field that is an int32 or an enum, which may be negative."""
    if not isinstance(value, int):
        raise CheckpointError("a field holds bytes, where a number is expected")
    return value - (1 << 64) if value >> 63 else value


def real(value: int | memoryview) -> float:
    """Decode a field that is a float."""
    data = bytes_of(value)
    if len(data) != 4:
        raise CheckpointError(f"a field holds {len(data)} bytes, where the 4 of a float are expected")
    return struct.unpack("<f", data)[0]


def bytes_of(value: int | memoryview) -> memoryview:
    """Return the view of a field that is bytes or a message."""
    if isinstance(value, int):
        raise CheckpointError("a field holds a number, where bytes are expected")
    return value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(message):
            raise CheckpointError("it ends in the middle of a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position
    raise CheckpointError("a number has more than 64 bits")
