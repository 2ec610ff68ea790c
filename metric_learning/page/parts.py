"""What a page consists of; the template draws each kind of block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from metric_learning.plot import shortened

LONGEST_NAME, LONGEST_PATH = 60, 120


def short(text: object, most: int = LONGEST_NAME) -> str:
    """A name as the page shows it."""
    return shortened(text, most)


@dataclass(frozen=True)
class Card:
    """One of the figures at the top: what it is, its value, and what it stands on."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    said: str


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first of each row is its header."""

    kind: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a sample of the line or the marker, and its name."""

    sample: Markup
    name: str


@dataclass(frozen=True)
class Chart:
    """A drawing with its legend; `numbers` says the same as a table, for whoever would rather read than look."""

    kind: ClassVar[str] = "chart"
    title: str
    svg: Markup
    keys: Sequence[Key] = ()
    note: str = ""
    numbers: Table | None = None


@dataclass(frozen=True)
class Charts:
    """Drawings, and tables that go with them, side by side where there is room."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart | Table]


@dataclass(frozen=True)
class Thumb:
    """A small picture; uri is None where it can't be read. role: query, wrong, right, other; the lines say it too."""

    uri: str | None
    alt: str
    role: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Row:
    """Pictures that belong together."""

    title: str
    path: str
    thumbs: Sequence[Thumb]


@dataclass(frozen=True)
class Rows:
    """Rows of pictures, the most important first."""

    kind: ClassVar[str] = "rows"
    title: str
    rows: Sequence[Row]

    @property
    def narrow(self) -> bool:
        """Whether two rows fit beside each other on a wide screen."""
        return max(len(row.thumbs) for row in self.rows) <= 4


Block = Text | Table | Charts | Rows


@dataclass(frozen=True)
class Section:
    """A heading, the place to link to, and what stands below it."""

    place: str
    title: str
    blocks: Sequence[Block]
