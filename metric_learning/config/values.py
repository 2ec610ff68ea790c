"""What a typed value means: text -> shape, steps, numbers, rates."""

import argparse

from metric_learning.checks import UserError, check_range


def shape_of(text: str) -> tuple[int, int, int]:
    """'3,224,224' -> (3, 224, 224)."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(_is_count(part) for part in parts):
        raise UserError(f"--image_shape must be channels,height,width such as 3,224,224; got {text!r}.")
    channels, height, width = (int(part) for part in parts)
    if channels not in (1, 3) or not (8 <= height <= 4096 and 8 <= width <= 4096):
        raise UserError(f"--image_shape needs 1 or 3 channels and sides of 8 to 4096 pixels; got {text!r}.")
    return channels, height, width


def steps_of(text: str) -> tuple[int, ...]:
    """'15000,25000' -> (15000, 25000), rising; '' -> ()."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(_is_count(part) for part in parts) or [*map(int, parts)] != sorted({int(part) for part in parts}):
        raise UserError(f"--lr_steps must be rising steps such as 15000,25000; got {text!r}.")
    return tuple(int(part) for part in parts)


def ks_of(text: str) -> tuple[int, ...]:
    """'1,2,4' -> (1, 2, 4), rising."""
    parts = [part.strip() for part in text.split(",")]
    if not all(_is_count(part) and int(part) for part in parts) or [*map(int, parts)] != sorted({*map(int, parts)}):
        raise UserError(f"--recall_ks must be rising counts such as 1,2,4; got {text!r}.")
    return tuple(int(part) for part in parts)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def numbers_of(name: str, text: str) -> tuple[float, ...]:
    """'0.5,0.5,0.5' -> (0.5, 0.5, 0.5); '' -> ()."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UserError(f"--{name} must be numbers such as 0.5,0.5,0.5; got {text!r}.") from None


def check_channel_numbers(name: str, text: str, channels: int | None) -> None:
    numbers = numbers_of(name, text)
    if numbers and len(numbers) not in ((1, 3) if channels is None else (channels,)):
        raise UserError(f"--{name} needs a number for each channel ({channels or '1 or 3'}); got {text!r}.")
    for number in numbers:
        check_range(f"--{name}", number, above=0 if name == "image_std" else None)


def fars_of(text: str) -> tuple[float, ...]:
    """'0.1,0.001' -> (0.1, 0.001)."""
    try:
        fars = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        fars = ()
    if not fars or not all(0 < far < 1 for far in fars):
        raise UserError(f"--fars must be rates between 0 and 1 such as 0.01,0.001; got {text!r}.")
    return tuple(sorted(set(fars), reverse=True))


def group_margins_of(text: str) -> dict[str, float]:
    """'African:0.1,Asian:0.05' -> {'African': 0.1, 'Asian': 0.05}; which groups there are, only the data knows."""
    found = _named_numbers("group_margins", text, "auto, or margins such as African:0.1,Asian:0.05")
    for name, margin in found.items():
        check_range(f"--group_margins of {name}", margin, -1, 1)
    return found


def class_weights_of(text: str) -> dict[str, float]:
    """'female:1.5,male:1' -> {'female': 1.5, 'male': 1}; which classes there are, only the data knows."""
    found = _named_numbers("class_weights", text, "balanced, or weights such as female:1.5,male:1")
    for name, weight in found.items():
        check_range(f"--class_weights of {name}", weight, above=0)
    return found


def _named_numbers(option: str, text: str, rule: str) -> dict[str, float]:
    """'a:1,b:2' -> {'a': 1, 'b': 2}."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, colon, value = part.rpartition(":")
        name = name.strip()
        try:
            number = float(value)
        except ValueError:
            colon = ""
        if not (name and colon):
            raise UserError(f"--{option} must be {rule}; got {text!r}.")
        if name in found:
            raise UserError(f"--{option} names {name!r} twice; got {text!r}.")
        found[name] = number
    return found


def vote_weights_of(text: str) -> tuple[float, ...]:
    """'2,1,1' -> (2.0, 1.0, 1.0), none below 0 and not all 0."""
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if not weights or not all(0 <= weight < float("inf") for weight in weights) or not sum(weights):
        raise UserError(f"--weights must be fit, or numbers of 0 and more such as 2,1,1; got {text!r}.")
    return weights


def boolean(text: str) -> bool:
    """True, False, 1, 0, yes, no, on, off, in any case."""
    value = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in value:
        raise argparse.ArgumentTypeError(f"must be True or False; got {text!r}")
    return value[text.lower()]


def integer(text: str) -> int:
    """A whole number, in digits."""
    if not (text.isascii() and text.removeprefix("-").removeprefix("+").isdigit() and len(text) < 100):
        raise argparse.ArgumentTypeError(f"must be a whole number; got {text!r}")
    return int(text)


def number(text: str) -> float:
    """Any number; whether it may be is for `validate` to say."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number; got {text!r}") from None


def text(text: str) -> str:
    return text
