"""Read pickles of plain data and tensors, and refuse everything else that a pickle can do.

A pickle is a program. Python's own unpickler, even with `find_class` overridden, lets the program set attributes of the
objects that it built, hash deep tuples until the stack is gone, and reserve a memo of 2**31 entries. Here `pickletools`
reads the opcodes and this file decides what they do: no import, no attribute, no hash but of text, and memory in
proportion to the number of opcodes, which is limited.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from clipita.errors import CheckpointError

# A large model has a thousand tensors of 40 opcodes each, and a tensor is built from seven values.
_MAX_OPCODES = 500_000
_MAX_ARGUMENTS = 16

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_STRINGS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE")
_LITERALS = frozenset((*_NUMBERS, *_STRINGS, "BINBYTES", "SHORT_BINBYTES"))
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Stream(Protocol):
    """The stream that pickletools reads from. Its maker limits how much `read` and `readline` give."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes."""
        ...

    def readline(self) -> bytes:
        """Read up to the end of a line."""
        ...

    def tell(self) -> int:
        """Return the position."""
        ...


class Function:
    """A callable that pickles may call. Nothing else is ever called."""

    def __init__(self, call: Callable[..., object]) -> None:
        self.call = call


def load(stream: Stream, names: Mapping[tuple[str, str], object], persistent: Callable[[object], object]) -> object:
    """Return the value of one pickle, and leave the stream behind its end.

    Args:
        stream: A stream at the beginning of the pickle.
        names: The value that each (module, name) stands for; the pickle may call one that is a `Function`.
        persistent: Called with a reference to outside data, returns its value.

    Raises:
        CheckpointError: An opcode or a name is not allowed, or the pickle is not well formed.
    """
    stack: list[Any] = []
    marks: list[int] = []  # the height of the stack at each mark
    memo: dict[int, object] = {}

    def take(count: int) -> list[Any]:
        if count > len(stack):
            raise CheckpointError("it takes more from its stack than is there")
        items = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return items

    def since_mark() -> list[Any]:
        return take(max(0, len(stack) - marks.pop()))

    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(Any, stream))):
        if count == _MAX_OPCODES:
            raise CheckpointError(f"its structure takes more than {_MAX_OPCODES} steps")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(_CONSTANTS[opcode.name])
            case name if name in _LITERALS:
                stack.append(argument)
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(take(_TUPLES[opcode.name])))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(since_mark())
            case "APPEND":
                item = stack.pop()
                _listed(cast(object, stack[-1])).append(item)
            case "APPENDS":
                items = since_mark()
                _listed(cast(object, stack[-1])).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(_set_items({}, since_mark()))
            case "SETITEM":
                pair = take(2)
                _set_items(cast(object, stack[-1]), pair)
            case "SETITEMS":
                items = since_mark()
                _set_items(cast(object, stack[-1]), items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[cast(int, argument)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[cast(int, argument)])
            case "GLOBAL":
                module, _, name = str(argument).partition(" ")
                stack.append(_named(names, module, name))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_named(names, module, name))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if not isinstance(function, Function) or not isinstance(arguments, tuple):
                    raise CheckpointError("it calls an object that is no function")
                if len(cast("tuple[object, ...]", arguments)) > _MAX_ARGUMENTS:  # a tuple may serve many calls
                    raise CheckpointError(f"it calls a function with more than {_MAX_ARGUMENTS} arguments")
                stack.append(function.call(*cast("tuple[object, ...]", arguments)))
            case "BUILD":  # sets attributes of an OrderedDict, e.g. a state dict's `_metadata`, which is not used
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise CheckpointError("it sets attributes of an object that has none")
            case "BINPERSID":
                stack.append(persistent(stack.pop()))
            case other:
                raise CheckpointError(f"it uses pickle's {other}, which no tensor needs. Nothing of it was run")
    raise AssertionError("pickletools ends with STOP or raises")


def _named(names: Mapping[tuple[str, str], object], module: object, name: object) -> object:
    if not isinstance(module, str) or not isinstance(name, str):
        raise CheckpointError("it asks for a name that is no text")
    if (module, name) not in names:
        raise CheckpointError(
            f"it asks for {module[:80]}.{name[:80]}, which is no tensor. Nothing of it was run; "
            "save the state dict alone, or use a safetensors file"
        )
    return names[module, name]


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        raise CheckpointError("it appends to an object that is no list")
    return cast("list[object]", value)


def _set_items(target: object, items: list[object]) -> dict[str, object]:
    if not isinstance(target, dict) or len(items) % 2:
        raise CheckpointError("it sets items of an object that is no mapping")
    mapping = cast("dict[str, object]", target)
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str):
            raise CheckpointError(
                f"it has a mapping with a key of type {type(key).__name__}: that is not a named tensor"
            )
        mapping[key] = value
    return mapping
