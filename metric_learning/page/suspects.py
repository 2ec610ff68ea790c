"""Labels that are probably wrong, as eval --clean finds them; here the first of them."""

import math
from collections.abc import Sequence

import numpy as np

from metric_learning.evaluate import Embedded
from metric_learning.metrics.identity_noise import FAR, NEARER, PAIR, IdentityErrors, identity_errors, most_central
from metric_learning.page.parts import LONGEST_PATH, Block, Row, Rows, Section, Table, Text, short
from metric_learning.page.thumbnails import thumb

SHOWN = 10
MANY = 0.1  # the share of suspects from which the network is the likelier culprit
SAID = {
    NEARER: "nearer to another class than to its own",
    FAR: "far from its own class",
    PAIR: "one of two that do not match",
}


def section(found: Embedded, classes: Sequence[str], trained: bool) -> Section:
    """The most suspicious pictures beside the middles of their class and of the nearest other, and close classes."""
    errors = identity_errors(found.embeddings, found.labels)
    names = [classes[label] for label in errors.classes.tolist()]
    alone = int((np.bincount(errors.codes) == 1).sum())
    said = f"{len(errors.suspects):,} of {len(found.paths):,} pictures are suspected"
    said += f"; {alone:,} alone in their class can't be judged" if alone else ""
    blocks: list[Block] = [Text(f"{said}. These are hints where to look, not proof: nothing was changed.")]
    if len(errors.suspects) > MANY * len(found.paths):
        blocks.append(
            Text("So many say more of the network than of the labels: it does not know these classes well enough.")
        )
    if trained:
        blocks.append(
            Text(
                "The network was trained on classes of these names: it may have learnt what is wrong and find it right."
            )
        )
    rows = [_row(errors, found, names, number) for number in range(min(SHOWN, len(errors.suspects)))]
    if rows:
        blocks.append(Rows("Suspect, the middle of its class, the middle of the nearest other class", rows))
    if errors.close:
        cells = [[f"{short(names[a])} – {short(names[b])}", f"{c:.3f}"] for a, b, c in errors.close[:SHOWN]]
        blocks.append(Table("Classes that are probably one", ["Classes", "Cosine of their centres"], cells))
    if len(errors.suspects) > SHOWN:
        blocks.append(Text("All of them, as a list and a sheet: eval.py --clean=suspects.csv."))
    return Section("suspects", "Labels that are probably wrong", blocks)


def _row(errors: IdentityErrors, found: Embedded, names: Sequence[str], number: int) -> Row:
    i = int(errors.suspects[number])
    own, other = int(errors.codes[i]), int(errors.other_class[i])
    thumbs = [thumb(found.paths[i], "query", "Suspect")]
    for place, role, said, cosine in (
        (own, "other", "Labelled", errors.own[i]),
        (other, "other", "Nearest other", errors.other[i]),
    ):
        middle = most_central(errors, found.embeddings, place, but=i) if place >= 0 else None
        if middle is not None:
            shown = f"{cosine:.3f}" if math.isfinite(cosine) else ""
            thumbs.append(thumb(found.paths[middle], role, said, names[place], shown))
    title = f"{number + 1}. {short(names[own])}: {SAID[errors.reasons[number]]}"
    return Row(title, short(found.paths[i], LONGEST_PATH), thumbs)
