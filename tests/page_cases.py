"""Materials for pages, and what stands on a page, read back as a browser would."""

import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from metric_learning.evaluate import Embedded, retrieval, verification
from metric_learning.metrics.histogram import ScoreHistograms
from metric_learning.page.material import Material
from metric_learning.report import Report

FARS = (0.1, 0.01, 0.001)
GROUPS = ("African", "Asian", "Caucasian")


def noisy_jpeg(seed: int, side: int = 120) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="jpeg", quality=95)
    return buffer.getvalue()


def embedded(folder: Path, classes: int = 9, each: int = 6, noise: float = 0.5, grouped: bool = True, seed: int = 0):
    """Pictures of noise, and embeddings that cluster round a corner for each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    rows = (np.eye(max(16, classes))[labels] + noise * rng.normal(size=(len(labels), max(16, classes)))).astype(
        np.float32
    )
    groups = np.array([GROUPS[label % 3] for label in labels]) if grouped else None
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(folder / f"{i}.jpg") for i in range(len(labels))]
    pictures = [noisy_jpeg(seed) for seed in range(12)]
    for i, path in enumerate(paths):
        Path(path).write_bytes(pictures[i % 12])
    return Embedded(rows, labels.astype(np.int64), groups, paths)


def material(found: Embedded, names: list[str] | None = None, **more) -> Material:
    histograms = ScoreHistograms()
    pairs = verification(found, FARS, histograms=histograms)
    report = Report({"data": "data/of the test", "split": "test"}, retrieval(found), pairs)
    names = names or [f"class {label}" for label in range(int(found.labels.max()) + 1)]
    return Material(report, found, names, histograms.counts(), **more)


def records(folder: Path, points: dict[str, dict[int, float]]) -> None:
    from visualdl import LogWriter

    with LogWriter(logdir=str(folder / "visualdl")) as writer:
        for tag, values in points.items():
            for step, value in values.items():
                writer.add_scalar(tag=tag, value=value, step=step)


class Page(HTMLParser):
    """tables: caption -> rows of cells; text: all that is read; tags and their attributes, in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables, self.tags, self.cards = {}, [], {}
        self.text, self._open, self._said, self._rows, self._caption = "", [], "", [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("caption", "td", "th", "dt", "dd"):
            self._said = ""
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag not in ("meta", "img", "link", "br", "wbr"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, (tag, self._open)
        if tag == "caption":
            self._caption = self._said
        elif tag in ("td", "th"):
            self._rows[-1].append(self._said)
        elif tag == "table":
            self.tables[self._caption] = self._rows
        elif tag == "dt":
            self._caption = self._said
        elif tag == "dd":
            self.cards.setdefault(self._caption, self._said)

    def handle_data(self, data):
        self._said += data
        if self._open and self._open[-1] != "style":
            self.text += data

    def column(self, caption: str, head: str) -> dict[str, str]:
        """First cell -> the cell below `head`."""
        rows = next(rows for name, rows in self.tables.items() if name.startswith(caption))
        return {row[0]: row[rows[0].index(head)] for row in rows[1:]}

    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]
