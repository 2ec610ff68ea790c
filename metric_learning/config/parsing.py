"""Options from a command line, from the config that a run saved, and for a run that is resumed."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from metric_learning.checks import UserError, suggestion
from metric_learning.config.base import RESUMABLE, Options, options
from metric_learning.config.elem import ElemOptions
from metric_learning.config.pair import PairOptions
from metric_learning.config.training import TrainOptions
from metric_learning.config.using import EvalOptions, InferOptions
from metric_learning.config.values import boolean, integer, number, text

COMMANDS: tuple[type[Options], ...] = (ElemOptions, PairOptions, EvalOptions, InferOptions)

AnyOptions = TypeVar("AnyOptions", bound=Options)
AnyTrain = TypeVar("AnyTrain", bound=TrainOptions)


def parse(kind: type[AnyOptions], arguments: list[str] | None = None) -> AnyOptions:
    """The command line as options. Anything wrong with it is a UserError of one line; --help prints and exits."""
    parser = _parser(kind)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UserError(f"{_unknown(kind, unknown[0])} See python {kind.command}.py --help.")
    values = vars(known)
    config = kind(**values, typed=frozenset(values))
    config.validate()
    return config


def _unknown(kind: type[Options], typed: str) -> str:
    """What is wrong with a word of the command line that no option takes."""
    if not typed.startswith("-"):
        return f"Unexpected {typed!r}: options are typed --name=value."
    name = typed.split("=")[0]
    owners = [f"{other.command}.py" for other in COMMANDS if name[2:] in {item.name for item in options(other)}]
    if owners and name.startswith("--"):
        return f"{kind.command}.py has no option {name}; {' and '.join(owners)} {'have' if owners[1:] else 'has'}."
    return f"Unknown option {name}.{suggestion(name, [f'--{item.name}' for item in options(kind)])}"


def from_dict(kind: type[AnyOptions], saved: dict[str, Any]) -> AnyOptions:
    """Options from a run's saved config; what this version doesn't know is left out."""
    check_saved(saved, (kind,))
    config = kind(**{item.name: saved[item.name] for item in options(kind) if item.name in saved})
    config.validate()
    return config


def check_saved(saved: dict[str, Any], kinds: Sequence[type[Options]] = COMMANDS) -> None:
    """A UserError where an option of a saved config has a value that it can't have in any of these commands."""
    hints: dict[str, set[Any]] = {}
    for kind in kinds:
        for name, hint in typing.get_type_hints(kind).items():
            parts = typing.get_args(hint) or (hint,)
            hints.setdefault(name, set()).update(typing.get_origin(part) or part for part in parts)
    known = {item.name for kind in kinds for item in options(kind)} & saved.keys()
    for name in sorted(known):
        value, allowed = saved[name], hints[name]
        fits = type(value) in allowed or (type(value) is int and float in allowed)
        odd = type(value) is str and ("\0" in value or len(value) > 4096)
        if not fits or odd or (type(value) is int and abs(value) >= 1 << 63):
            raise UserError(f"The saved config can't be used: {name} is {repr(value)[:40]}. Was it edited?")


def resumed(config: AnyTrain, saved: dict[str, Any]) -> AnyTrain:
    """The saved options of the run that `config` asks to resume, with what was typed that a resumed run may change."""
    before = from_dict(type(config), saved)
    changes = {}
    for item in options(type(config)):
        if item.name not in config.typed or item.name in ("checkpoint", "data_dir"):
            continue
        old, new = getattr(before, item.name), getattr(config, item.name)
        if new != old and not item.metadata[RESUMABLE] and not item.metadata["retired"]:
            raise UserError(
                f"A resumed run keeps --{item.name}={old}; got {new}. Leave the option out, or start a new run."
            )
        changes[item.name] = new
    if "total_iter_num" in config.typed:  # a length in steps instead of the one in epochs
        changes["epochs"] = None
    if "data_dir" in config.typed:  # the data may have been moved
        changes["data_dir"] = config.data_dir
    return dataclasses.replace(before, **changes, checkpoint=config.checkpoint, typed=config.typed)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}. See python {self.prog} --help.")


def _parser(kind: type[Options]) -> argparse.ArgumentParser:
    name = f"{kind.command}.py"
    parser = _Parser(prog=name, usage=f"{name} [--option=value ...]", description=kind.purpose, allow_abbrev=False)
    hints = typing.get_type_hints(kind)
    for item in options(kind):
        convert, repeated = _converter(hints[item.name])
        bare = convert is boolean and not item.default  # what is off by default may be typed without =True
        default = "" if item.default in (None, "") else f" [{item.default}]"
        one_of = f" ({', '.join(item.metadata['choices'])})" if item.metadata["choices"] else ""
        parser.add_argument(
            *(f"--{typed}" for typed in (item.name, *item.metadata["also"])),
            type=convert,
            default=argparse.SUPPRESS,
            **({"nargs": "?", "const": True} if bare else {"nargs": 2 if repeated else None}),
            metavar=("A", "B") if repeated else convert.__name__.upper(),
            help=f"{item.metadata['help']}{one_of}{default}".replace("%", "%%"),
        )
    return parser


def value_names(hint: Any) -> str:
    """What a value of this type is called: boolean, integer, number, text, or two texts."""
    convert, repeated = _converter(hint)
    return "two texts" if repeated else str(convert.__name__)


def _converter(hint: Any) -> tuple[Any, bool]:
    """The function that reads one value of this type, and whether the option takes a pair of them."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is list:
        return text, True
    return {bool: boolean, int: integer, float: number, str: text}[hint], False
