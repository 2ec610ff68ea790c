"""Pickles, read by a machine of this module's own that knows only what plain data takes; Python's is not called.

So nothing is imported, no attribute is read or set, and nothing is called but the functions that a reader lists. A
pickle that would grow far beyond its file while it is read, or that never ends, is refused.
"""

import codecs
import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

STEPS = 2_000_000  # opcodes of one pickle: 12,000 pictures or 5,000 tensors take a tenth of it
GROWTH = 8  # times its file: what functions make of it
SLACK = 1 << 20  # and bytes beside that
MOST_KEY = 1 << 31  # numbers beyond can be chosen so that a dictionary of them takes hours

_OPCODES = {opcode.code.encode("latin-1"): (opcode.name, opcode.arg) for opcode in pickletools.opcodes}
_LITERALS = frozenset(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"))
_LITERALS |= {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_LITERALS |= {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Maker(NamedTuple):
    """A function that a pickle may call."""

    make: Callable[..., Any]


class Built:
    """What a pickle may hand a state to, behind its making."""

    def build(self, state: Any) -> None:
        raise NotImplementedError


def no_references(name: Any) -> Any:
    raise pickle.UnpicklingError("it refers to something outside of it")


def load(stream: io.BytesIO, find: Callable[[str, str], Any], refer: Callable[[Any], Any] = no_references) -> Any:
    """The next object of the stream, which stands behind it then. Text of Python 2 keeps its bytes, as latin-1.

    find: (module, name) -> what stands for that, a Maker where it may be called; it raises for what is unknown.
    refer: what stands for a persistent id. Sets come as lists, and keys that are neither text nor small numbers as
    objects without a meaning. Raises UnpicklingError or EOFError, or what find, refer and the Makers raise.
    """
    try:
        return _Machine(stream, find, refer).run()
    except (IndexError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise pickle.UnpicklingError("it is damaged") from error


class _Machine:
    """The stack, the marks in it and the memo, as pickletools describes them."""

    def __init__(self, stream: io.BytesIO, find: Callable[[str, str], Any], refer: Callable[[Any], Any]) -> None:
        self.stream, self.find, self.refer = stream, find, refer
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.room = GROWTH * len(stream.getbuffer()) + SLACK

    def run(self) -> Any:
        read = self.stream.read
        for _ in range(STEPS):
            opcode = _OPCODES.get(read(1))
            if opcode is None:
                self._no_opcode()
            name, kind = opcode
            argument = None if kind is None else self._argument(kind)
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _SHORT_TUPLES:
                self._tuple(_SHORT_TUPLES[name])
            elif name == "STOP":
                return self.stack.pop()
            else:
                self._step(name, argument)
        raise pickle.UnpicklingError(f"it takes more than {STEPS:,} steps, and plain data does not")

    def _no_opcode(self) -> NoReturn:
        if self.stream.tell() == len(self.stream.getbuffer()):
            raise EOFError("Ran out of input")
        raise pickle.UnpicklingError("it is damaged, or no pickle")

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "MARK":
                self.marks.append(stack)
                self.stack = []
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "TUPLE":
                self._made(tuple)
            case "LIST" | "FROZENSET":
                self._made(list)
            case "DICT":
                self._made(_table)
            case "APPEND":
                value = stack.pop()
                _checked(stack[-1], list).append(value)
            case "APPENDS" | "ADDITEMS":
                items = self._to_mark()
                _checked(self.stack[-1], list).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _checked(stack[-1], dict)[_key(key)] = value
            case "SETITEMS":
                items = self._to_mark()
                _checked(self.stack[-1], dict).update(_table(items))
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                module, _, found = argument.partition(" ")
                stack.append(self.find(module, found))
            case "STACK_GLOBAL":
                found, module = stack.pop(), stack.pop()
                stack.append(self.find(_checked(module, str), _checked(found, str)))
            case "REDUCE":
                arguments, made = stack.pop(), stack.pop()
                stack.append(self._counted(_checked(made, Maker).make(*_checked(arguments, tuple))))
            case "BUILD":
                state = stack.pop()
                _checked(stack[-1], Built).build(state)
                self._counted(stack[-1])
            case "BINPERSID":
                stack.append(self.refer(stack.pop()))
            case "POP":
                self._to_mark() if not stack and self.marks else stack.pop()
            case "POP_MARK":
                self._to_mark()
            case "PROTO" | "FRAME":
                pass
            case _:
                raise pickle.UnpicklingError(f"its opcode {name} is none of plain data")

    def _argument(self, kind: pickletools.ArgumentDescriptor) -> Any:
        try:
            return self._quoted() if kind is pickletools.stringnl else kind.reader(self.stream)
        except (ValueError, struct.error) as error:
            raise pickle.UnpicklingError("it is cut off or damaged") from error

    def _quoted(self) -> str:
        """A line of text in quotes, as Python 2 wrote its str."""
        line = self.stream.readline().strip()
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise pickle.UnpicklingError("it is damaged")
        return codecs.escape_decode(line[1:-1])[0].decode("latin-1")

    def _to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _made(self, make: Callable[[list[Any]], Any]) -> None:
        items = self._to_mark()
        self.stack.append(make(items))

    def _tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("too short a stack")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _counted(self, made: Any) -> Any:
        """What a function has made, unless it is too much: a few bytes can call for a copy of megabytes."""
        size = getattr(made, "nbytes", None)
        self.room -= size if size is not None else len(made) if isinstance(made, (bytes, str)) else _items(made)
        if self.room < 0:
            raise pickle.UnpicklingError("it grows far beyond its file while it is read")
        return made


def _items(made: Any) -> int:
    return 64 * len(made) if isinstance(made, (list, tuple, dict)) else 64


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f"it uses a {type(value).__name__.strip('_')} as a {kind.__name__.lower()}")
    return value


def _table(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise pickle.UnpicklingError("it is damaged")
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _key(key: Any) -> Any:
    """Only text, whose hash nobody can foresee, and small numbers are kept: to hash a deep tuple may crash, too."""
    return key if type(key) is str or (type(key) in (int, bool) and abs(key) < MOST_KEY) else object()
