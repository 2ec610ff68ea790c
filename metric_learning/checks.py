"""What the toolkit says when its input is wrong: one line, with what, where, the rule and the remedy."""

import difflib
import math
from collections.abc import Iterable


class Terminated(KeyboardInterrupt):
    """SIGTERM stopped the command; of a training a message says what was saved."""


class UserError(Exception):
    """The user can mend this. The message is one line; the four scripts print it and exit with status 2."""


def plain_line(text: str) -> str:
    """A text on one line; what could drive a terminal, as names in files of strangers may, as its escapes."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)


def brief(value: object, most: int = 100) -> str:
    """What a file holds, to be said in an error: cut off where it is long."""
    said = repr(value)
    return said if len(said) <= most else f"{said[:most]}..."


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` was most likely meant to be, ignoring case; None if nothing is near."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def suggestion(name: str, choices: Iterable[str]) -> str:
    """' Did you mean X?' or '' - to be put behind an error about an unknown name."""
    near = nearest(name, choices)
    return f" Did you mean {near!r}?" if near else ""


def check_choice(what: str, value: str, choices: Iterable[str]) -> str:
    """Return `value`, or raise a UserError that lists the choices and names the nearest."""
    choices = list(choices)
    if value not in choices:
        raise UserError(f"{what} must be one of {', '.join(choices)}; got {brief(value)}.{suggestion(value, choices)}")
    return value


def check_range(
    what: str, value: float, low: float | None = None, high: float | None = None, *, above: float | None = None
) -> None:
    """Raise a UserError unless low <= value <= high and value > above, where given. NaN and infinity never pass."""
    rules = []
    if low is not None:
        rules.append((value >= low, f"at least {low}"))
    if high is not None:
        rules.append((value <= high, f"at most {high}"))
    if above is not None:
        rules.append((value > above, f"above {above}"))
    if not all(held for held, _ in rules) or not math.isfinite(value):
        said = " and ".join(rule for _, rule in rules) or "a finite number"
        raise UserError(f"{what} must be {said}; got {value}.")
