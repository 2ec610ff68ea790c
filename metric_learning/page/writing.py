"""Material -> the text of the page."""

import os
import re
from collections.abc import Mapping
from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from metric_learning.metrics.confusion import most_confused
from metric_learning.metrics.retrieval import first_ranks, nearest
from metric_learning.page import learning, mapping, mistakes, retrieving, suspects, verifying
from metric_learning.page.material import Material
from metric_learning.page.parts import Card, Rows, Section, short

# Control characters, halves of surrogate pairs (bytes of names that are no text), and what turns the direction of text.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
LONGEST_FACT = 300


def page_html(material: Material) -> str:
    """One HTML document of at most 2 MB: no script, nothing that is fetched, and text from outside only as text."""
    found, left_out = _sections(material)
    title, subtitle = _titles(material.report.about)
    html = _template().render(
        title=title,
        subtitle=subtitle,
        cards=_cards(material),
        facts={name: short(value, LONGEST_FACT) for name, value in material.report.about.items()},
        sections=found,
        left_out=left_out,
        pictures=_pictures(found),
        made=material.made,
        style=Markup(_file("style.css")),
    )
    return UNPRINTABLE.sub("\ufffd", html)


def _titles(about: Mapping[str, object]) -> tuple[str, str]:
    """Which network on which data, and how much of it."""
    network, data = (str(about.get(name, "")) for name in ("network", "data"))
    said = [network.split(",")[0], os.path.basename(data.rstrip("/"))]
    title = " on ".join(short(part) for part in said if part) or "Report"
    counts = str(about.get("pictures / classes", "")).split(" / ")
    parts = [f"{counts[0]} pictures", f"{counts[1]} classes" if counts[1] != "-" else ""] if len(counts) == 2 else []
    split = f"split {about['split']}" if "split" in about else ""
    return title, short(" · ".join(part for part in ("Evaluation report", split, *parts) if part), LONGEST_FACT)


def _file(name: str) -> str:
    return (files("metric_learning.page") / name).read_text(encoding="utf-8")


def _template() -> Template:
    loader = DictLoader({"page.html": _file("page.html")})
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"breakable": breakable, "together": together}
    return environment.get_template("page.html")


def together(text: object) -> str:
    """Without a place for a line to end inside numbers such as 1e-3."""
    return re.sub(r"(?<=\de)-(?=\d)", "\N{NON-BREAKING HYPHEN}", str(text))


def breakable(text: object) -> Markup:
    """Escaped, with places where a line may end: names and paths have no spaces."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[/_.-])(?=\w)", str(text)))


def _pictures(sections: list[Section]) -> int:
    """How many different pictures are shown."""
    blocks = [block for section in sections for block in section.blocks if isinstance(block, Rows)]
    return len({thumb.uri for block in blocks for row in block.rows for thumb in row.thumbs if thumb.uri})


def _cards(material: Material) -> list[Card]:
    report = material.report
    found = retrieving.cards(report.retrieval) if report.retrieval is not None else []
    found += verifying.fold_cards(report.folds)
    return found + (verifying.cards(report.verification) if report.verification is not None else [])


def _sections(material: Material) -> tuple[list[Section], list[str]]:
    """What there is, in the order of the page, and what there is not, each with its reason."""
    report, found = material.report, material.embedded
    sections, left_out = list[Section](), list[str]()
    behind = list[Section]()
    if found is not None and report.retrieval is not None:
        ranks = first_ranks(found.embeddings, found.labels)
        neighbours = nearest(found.embeddings, found.embeddings, 1, exclude_self=True)[1][:, 0]
        confused = most_confused(found.labels, neighbours, mistakes.CONFUSED)
        sections.append(retrieving.section(report, report.retrieval, ranks, found))
        behind = [
            mistakes.worst_section(ranks, found, material.classes),
            mistakes.confused_section(confused, neighbours, found, material.classes),
            suspects.section(found, material.classes, material.trained),
            mapping.section(found, material.classes, confused),
        ]
    else:
        left_out.append(
            "Retrieval, the worst retrievals, confused classes, probably wrong labels, the map: a list of pairs says "
            "which pictures are alike, not which class each is of."
        )
    if report.verification is not None:
        sections.append(verifying.section(material))
        if len(report.verification.groups) < 2:
            left_out.append("Figures by group (bias, FRR by group): the data has no groups, or one only.")
    else:
        left_out.append("Verification: there are no pairs of two classes.")
    sections += behind
    curves = learning.read_curves(material.run) if material.run is not None else {}
    if material.run is not None and curves:
        sections.append(learning.section(material.run, curves))
    else:
        why = "the run's folder holds no records that can be read" if material.run else "the weights are of no run"
        left_out.append(f"Learning curves: {why}.")
    return sections, left_out
