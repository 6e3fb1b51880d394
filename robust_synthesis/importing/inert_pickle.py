"""Reads what a pickle describes without running any of it.

A pickle is a program, which may import and call anything. Here its instructions are interpreted on a small stack where
names of functions and classes stay names and calls are not made. Numbers, strings, lists and dictionaries come out as
themselves, a tensor as the place where it is stored, and everything else as an `Unknown`.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import IO, Any


class Unknown:
    """Stands for the result of something that was not run."""


@dataclass(frozen=True)
class Name:
    """A function or class of the file; nothing is ever looked up under it."""

    module: str
    name: str


@dataclass(frozen=True)
class Storage:
    """A flat array beside the pickle: its key, torch's name of its type ("FloatStorage"), its length in elements."""

    key: str
    kind: str
    length: int


@dataclass(frozen=True)
class StoredTensor:
    """A strided view of a storage; offset and strides count elements. Its numbers are unchecked."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def load(stream: IO[bytes], storages: dict[str, Storage] | None = None) -> object:
    """The object that the next pickle of `stream` describes; the stream is left right behind that pickle.

    Every storage that the pickle refers to is entered in `storages`. Raises ValueError for what is not a whole pickle.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
        return machine.stack.pop()
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a readable pickle: {error}") from error


class _Machine:
    """The stack, marks and memo that a pickle's instructions work on."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages = storages

    def step(self, opcode: str, argument: Any) -> None:  # noqa: PLR0912, PLR0915 (the instruction set, in one place)
        stack = self.stack
        match opcode:
            case "PROTO" | "FRAME" | "READONLY_BUFFER":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "POP" if self.marks and self.marks[-1] == len(stack):
                self.marks.pop()
            case "POP":
                stack.pop()
            case "POP_MARK" | "ADDITEMS":
                self.since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self.top(int(opcode[-1]))))
            case "TUPLE":
                stack.append(tuple(self.since_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(self.since_mark())
            case "APPEND" | "APPENDS":
                items = self.since_mark() if opcode == "APPENDS" else self.top(1)
                if isinstance(stack[-1], list):
                    stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = self.since_mark()
                stack.append(_entries(zip(items[::2], items[1::2], strict=True)))
            case "SETITEM" | "SETITEMS":
                items = self.since_mark() if opcode == "SETITEMS" else self.top(2)
                if isinstance(stack[-1], dict):
                    stack[-1].update(_entries(zip(items[::2], items[1::2], strict=True)))
            case "GLOBAL":
                stack.append(Name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(Name(*self.top(2)))
            case "REDUCE" | "NEWOBJ":
                stack.append(_result(*self.top(2)))
            case "BUILD":  # state for an object: the only ones here, dictionaries, lists and unknowns, take none
                stack.pop()
            case "BINPERSID":
                stack.append(self.persistent(stack.pop()))
            case "NEWOBJ_EX":
                self.top(3)
                stack.append(Unknown())
            case "INST" | "OBJ" | "FROZENSET":
                self.since_mark()
                stack.append(Unknown())
            case "EMPTY_SET" | "PERSID" | "EXT1" | "EXT2" | "EXT4" | "NEXT_BUFFER":
                stack.append(Unknown())
            case _:  # every other instruction pushes the number, string or bytes that is its argument
                stack.append(argument)

    def top(self, count: int) -> list[Any]:
        """Take the last `count` values off the stack."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def since_mark(self) -> list[Any]:
        """Take everything off the stack that was pushed after the last mark."""
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def persistent(self, found: Any) -> object:
        """What torch.save calls ("storage", type, key, device, length), in old versions with None at the end."""
        match found:
            case ("storage", Name(_, kind), str(key), _, int(length), *rest) if rest in ([], [None]):
                return self.storages.setdefault(key, Storage(key, kind, length))
        return Unknown()


def _entries(pairs: Any) -> dict[Any, Any]:
    """A dictionary of the pairs whose key is plain: a tuple nested a million deep would crash its own hash function."""
    return {key: value for key, value in pairs if isinstance(key, (str, int, float, bytes, type(None)))}


def _result(function: Any, arguments: Any) -> object:
    """What the few functions that state dicts are made of would return."""
    match function, arguments:
        case Name("collections", "OrderedDict"), ():
            return {}
        case Name("collections", "OrderedDict"), ([*pairs],):
            return _entries(pairs)
        case Name("torch", "Size"), (tuple(sizes),):
            return sizes
        case (
            Name("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"),
            (Storage() as storage, int(offset), tuple(size), tuple(stride), *_),
        ):
            return StoredTensor(storage, offset, size, stride)
        case (
            Name("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"),
            (StoredTensor() as tensor, *_),
        ):
            return tensor
        case Name("torch._tensor", "_rebuild_from_type_v2"), (Name() as inner, _, tuple(inner_arguments), _):
            return _result(inner, inner_arguments)
    return Unknown()
