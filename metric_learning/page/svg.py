"""The few things that drawings are made of: escaped elements, scales, ticks, markers, and a frame with axes."""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from metric_learning.plot import shortened

WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 46
SIZE = 14  # of letters on a phone, in units, as in the style sheet; elsewhere they are smaller
# A series is told by its colour (classes s0, s1, ... of the style sheet), its dashes and its markers together.
SERIES = 6
DASHES = (None, "7 3", "2 3", "10 3 2 3", "4 2", "12 4")
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "plus")


def element(name: str, *content: object, **attributes: object) -> Markup:
    """<name ...>content</name>; text is escaped, None leaves an attribute out, stroke_width becomes stroke-width."""
    said = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(part) for part in content)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), said, inside)


def _plain(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def drawing(name: str, title: str, said: str, *content: object, height: float = HEIGHT) -> Markup:
    """A whole <svg>, with a title and a description for those who do not see it; name: its own on the page."""
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", said, id=f"{name}-desc"),
        *content,
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def text(said: object, x: float, y: float, anchor: str = "middle", class_: str | None = None, **more: object) -> Markup:
    return element("text", said, x=float(x), y=float(y), text_anchor=anchor, class_=class_, **more)


def fitted(said: object, room: float) -> str:
    """As much of a name as is at most `room` units wide; its middle gives way."""
    whole = shortened(said, 60)
    cuts = (shortened(whole, most) for most in range(len(whole), 0, -1))
    return next((cut for cut in cuts if SIZE * sum(map(_wide, cut)) <= room), "")


def _wide(letter: str) -> float:
    """How wide a letter is at the most, as a share of the font's size, in a font as wide as DejaVu Sans or Verdana."""
    if unicodedata.east_asian_width(letter) in "WF" or letter in "MWmw%@…":
        return 1.0
    if letter in "fijlrtI .,:;'|!()[]/-":
        return 0.42
    return 0.8 if letter.isupper() else 0.64


def line(x1: float, y1: float, x2: float, y2: float, class_: str, **more: object) -> Markup:
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_, **more)


def path(xs: Sequence[float], ys: Sequence[float], step: bool = False) -> str:
    """The d of a line through the points; step: across, then up or down."""
    parts = [f"M{xs[0]:.1f} {ys[0]:.1f}"] if len(xs) else []
    for x, y in zip(xs[1:], ys[1:], strict=True):
        parts.append(f"H{x:.1f}V{y:.1f}" if step else f"L{x:.1f} {y:.1f}")
    return "".join(parts)


def colour_class(series: int) -> str:
    """The class of a series in the style sheet; past the last one gray."""
    return f"s{series}" if series < SERIES else "other"


def marker(series: int, x: float, y: float, size: float = 4.0, *content: object) -> Markup:
    """The series's own shape round (x, y); content: a <title>, which shows when the pointer rests on it."""
    shape = MARKERS[series % len(MARKERS)] if series < SERIES else "circle"
    look = {"class_": f"mark {colour_class(series)}"}
    r = float(size)
    if shape == "circle":
        return element("circle", *content, cx=float(x), cy=float(y), r=r, **look)
    points = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.15), (1.1, 0.85), (-1.1, 0.85)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        "cross": _arms(45),
        "plus": _arms(0),
    }[shape]
    corners = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in points)
    return element("polygon", *content, points=corners, **look)


def _arms(degrees: float) -> list[tuple[float, float]]:
    """The corners of a plus whose arms are thick enough to be seen, turned."""
    thick, c, s = 0.42, math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    quarter = [(thick, -1.2), (thick, -thick), (1.2, -thick)]
    corners = []
    for turn in range(4):
        for x, y in quarter:
            for _ in range(turn):
                x, y = -y, x
            corners.append((c * x - s * y, s * x + c * y))
    return corners


def sample(series: int, dashed: bool = True, marked: bool = True) -> Markup:
    """What a legend shows of a series."""
    drawn = []
    if dashed:
        drawn.append(line(1, 7, 31, 7, f"line {colour_class(series)}", stroke_dasharray=_dash(series)))
    if marked:
        drawn.append(marker(series, 16, 7))
    look = {"class_": "key", "viewBox": "0 0 32 14"} if dashed else {"class_": "key dot", "viewBox": "9 0 14 14"}
    return element("svg", *drawn, aria_hidden="true", **look)


def _dash(series: int) -> str | None:
    return DASHES[series % len(DASHES)]


def curve(series: int, xs: Sequence[float], ys: Sequence[float], step: bool = False, marks: int = 6) -> Markup:
    """A line in the look of its series, with some markers, further along for each series so that few coincide."""
    drawn = [
        element("path", d=path(xs, ys, step), class_=f"line {colour_class(series)}", stroke_dasharray=_dash(series))
    ]
    every = max(1, -(-len(xs) // marks))
    offset = series * every // SERIES
    drawn += [marker(series, xs[i], ys[i], 3.4) for i in range(min(offset, len(xs) - 1), len(xs), every)]
    return element("g", *drawn)


@dataclass(frozen=True)
class Axis:
    """A scale from low to high, and how its ticks are written."""

    name: str
    low: float
    high: float
    log: bool = False
    label: Callable[[float], str] = "{:g}".format

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high one; what is outside lies on the nearer end."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(max((at - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between the ends, at most so many."""
    if not high > low:
        return [low]
    rough = (high - low) / (most - 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10, 20) if unit * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Powers of ten between the ends, and 2 and 5 times them where there is room."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    for factors in ((1, 2, 5), (1,)):
        found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // most)]


@dataclass(frozen=True)
class Frame:
    """Two axes round a field of the drawing."""

    x: Axis
    y: Axis
    top: float = TOP
    height: float = HEIGHT

    @property
    def bottom(self) -> float:
        return self.height - BOTTOM

    def at_x(self, value: float) -> float:
        return LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)

    def at_y(self, value: float) -> float:
        return self.bottom - self.y.share(value) * (self.bottom - self.top)

    def drawn(self, y_ticks: bool = True) -> Markup:
        """Grid lines, ticks and names."""
        parts = []
        for value in self.y.ticks() if y_ticks else []:
            parts.append(line(LEFT, self.at_y(value), WIDTH - RIGHT, self.at_y(value), "grid"))
            parts.append(text(self.y.label(value), LEFT - 6, self.at_y(value) + 4, "end"))
        for value in self.x.ticks():
            parts.append(line(self.at_x(value), self.bottom, self.at_x(value), self.bottom + 4, "axis"))
            parts.append(text(self.x.label(value), self.at_x(value), self.bottom + 17))
        parts.append(line(LEFT, self.bottom, WIDTH - RIGHT, self.bottom, "axis"))
        parts.append(text(self.x.name, (LEFT + WIDTH - RIGHT) / 2, self.height - 10, class_="name"))
        middle = (self.top + self.bottom) / 2
        turned = f"rotate(-90 12 {middle:.1f})"
        parts.append(text(self.y.name, 12, middle, class_="name", transform=turned))
        return element("g", *parts)

    def upright(self, value: float, said: str) -> Markup:
        """A line across the field at x = value, with its name along it."""
        x = self.at_x(value)
        turned = f"rotate(-90 {x - 4:.1f} {self.top + 2:.1f})"
        return element(
            "g",
            line(x, self.top, x, self.bottom, "point"),
            text(said, x - 4, self.top + 2, "end", "small", transform=turned),
        )
