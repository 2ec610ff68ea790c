"""Which pictures probably show somebody else than their label says, and which classes are probably one person.

Each picture is compared with the centre of its own class, made without it, and with the centres of all other classes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.checks import check_range
from metric_learning.metrics.cosine import ROWS_AT_ONCE, Floats, Indices, Similarities, hide_self, labels_of, unit_rows

NEARER, FAR, PAIR = "nearer", "far", "pair"
REASONS = (NEARER, FAR, PAIR)
NONE, CLEARED = -1, -2

KEPT = 0.75  # the share of a class that makes its centre
# Below the median, in robust standard deviations; chosen as docs/label_noise.md says.
FAR_BELOW = 4.0
CLOSE_BELOW = 1.5
# Cosines that are all but equal are no measure of how far is far: float32 rounding would decide.
LEAST_SPREAD = 1e-3


class ClosePair(NamedTuple):
    """Two classes, by their places in `classes`, and the cosine of their centres."""

    first: int
    second: int
    cosine: float


@dataclass(frozen=True, eq=False)
class IdentityErrors:
    """What the embeddings of N pictures of C classes say of their labels.

    classes (C,): the labels, sorted; codes (N,): the place of each picture's label in them; centres (C, D) unit rows.
    own (N,): cosine to the centre of the others of the class, infinite where there are none. other_class (N,): place of
    the nearest other class, -1 without one; other (N,): cosine to its centre, -infinite without one. suspicion (N,):
    max(other, far) - own: by how much the label is the worse explanation, above 0 for a suspect, -infinite for a
    picture that is not judged; without `other` where that class is close to its own. suspects (M,): the suspected
    pictures, most suspicious first, ties by index; reasons (M,): nearer, far or pair. close: pairs of classes that are
    probably one person, highest cosine first. far_cosine, close_cosine: the thresholds, None where no class has
    two pictures.
    """

    classes: NDArray[np.generic]
    codes: Indices
    centres: Floats
    own: NDArray[np.float64]
    other_class: Indices
    other: NDArray[np.float64]
    suspicion: NDArray[np.float64]
    suspects: Indices
    reasons: list[str]
    close: list[ClosePair]
    far_cosine: float | None
    close_cosine: float | None


def identity_errors(
    embeddings: ArrayLike, labels: ArrayLike, far: float = FAR_BELOW, close: float = CLOSE_BELOW
) -> IdentityErrors:
    """embeddings (N, D), labels (N,) of any kind -> IdentityErrors.

    The embeddings should be those of a network that was not trained on these labels: one that was has learnt the wrong
    ones, too. A class's centre is the normalised sum of the unit embeddings of those 3/4 of its pictures (rounded up)
    that lie nearest to it, found in two rounds from the centre of all: up to a quarter of wrong pictures does not pull
    it, and unlike a medoid it averages out what is peculiar to one picture. For a picture's own centre it is left out,
    also from the choice: the 3/4 are those of the others.

    A picture is suspected as
    - nearer: another class's centre is nearer than its own, and not far;
    - far: its own centre is far, and so is every nearer one. Far is a cosine `far` robust standard deviations
      (1.4826 x the median absolute deviation) below the median of all pictures' cosines to their own centres;
    - pair: far, in a class of two. Which of the two is wrong can't be known, so both are listed; but where only one is
      nearer to another class, only that one is.
    A picture alone in its class is not judged: there is nothing that it could fail to match. Its class may be close to
    another. Classes are close whose centres' cosine is at most `close` such deviations below that median, and at least
    half of the pictures of either, and two of them, not far from the other's centre; of each class only the nearest
    other is looked at, so there are at most C pairs. A picture that is nearer to a class close to its own is no suspect
    for that: of two folders of one person half of the pictures would be.

    No (N, C) array is held: 256 pictures at a time meet all centres. An embedding of 0 has cosine 0 with everything.
    Raises UserError for shapes that do not match, rows that are not finite, and negative `far` or `close`.
    """
    check_range("far", far, 0)
    check_range("close", close, 0)
    units = unit_rows(embeddings)
    classes, codes = np.unique(labels_of(labels, len(units)), return_inverse=True)
    codes = codes.ravel().astype(np.int64)
    own, centres = _own_cosines_and_centres(units, codes, len(classes))
    other, other_class = _nearest_other(units, codes, centres)
    far_cosine, close_cosine = _threshold(own, far), _threshold(own, close)
    pairs = _close(units, codes, centres, close_cosine, far_cosine)
    rival = np.where(_same_person(codes, other_class, pairs), -np.inf, other)
    reason = _reasons(own, rival, codes, far_cosine)
    suspicion = np.maximum(rival, -np.inf if far_cosine is None else far_cosine) - own
    suspicion[reason == CLEARED] = -np.inf
    suspects = np.flatnonzero(reason >= 0)
    suspects = suspects[np.argsort(-suspicion[suspects], kind="stable")]
    return IdentityErrors(
        classes,
        codes,
        centres,
        own,
        other_class,
        other,
        suspicion,
        suspects,
        [REASONS[code] for code in reason[suspects]],
        pairs,
        far_cosine,
        close_cosine,
    )


def most_central(errors: IdentityErrors, embeddings: ArrayLike, place: int, but: int = -1) -> int | None:
    """The picture nearest to the centre of the class at `place`, picture `but` left out; None if there is no other."""
    members = np.flatnonzero(errors.codes == place)
    members = members[members != but]
    if not len(members):
        return None
    cosines = unit_rows(np.asarray(embeddings)[members]) @ errors.centres[place]
    return int(members[cosines.argmax()])


# ---- centres


def _own_cosines_and_centres(units: Floats, codes: Indices, count: int) -> tuple[NDArray[np.float64], Floats]:
    """(cosines to the centre of the others (N,), infinite for a picture alone; centres (C, D) unit rows)."""
    sizes = np.bincount(codes, minlength=count)
    rank = _ranks(codes, np.zeros(len(codes)), sizes)
    for share in (1.0, KEPT, KEPT):
        own = _cosines_to_others(units, codes, rank, _part(share, sizes - 1))
        rank = _ranks(codes, own, sizes)
    centres = unit_rows(_sums(units, codes, rank < _part(KEPT, sizes)[codes], count))
    own[sizes[codes] < 2] = np.inf
    return own, centres


def _part(share: float, sizes: Indices) -> Indices:
    return np.asarray(np.ceil(share * sizes), np.int64)


def _ranks(codes: Indices, values: NDArray[np.float64], sizes: Indices) -> Indices:
    """The place (N,) of each picture among those of its class, from 0, the highest value first, ties by index."""
    order = np.lexsort((-values, codes))
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank


def _cosines_to_others(units: Floats, codes: Indices, rank: Indices, counts: Indices) -> NDArray[np.float64]:
    """Cosine (N,) of each picture with the sum of the first counts[class] (C,) of the OTHERS in its class's ranking.

    To one of the first themselves these are the rest of them and the next in the ranking.
    """
    first, following = rank < counts[codes], np.flatnonzero(rank == counts[codes])
    sums = _sums(units, codes, first, len(counts))
    after = np.empty(len(counts), np.int64)
    after[codes[following]] = following
    own = np.empty(len(units))
    for start in range(0, len(units), ROWS_AT_ONCE):
        here = slice(start, start + ROWS_AT_ONCE)
        mine, code, inside = units[here].astype(np.float64), codes[here], first[here]
        target = sums[code]
        target[inside] += units[after[code[inside]]] - mine[inside]
        lengths = np.linalg.norm(target, axis=1)
        own[here] = np.einsum("nd,nd->n", target, mine) / np.where(lengths > 0, lengths, 1.0)
    return own


def _sums(units: Floats, codes: Indices, chosen: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
    """Sum (C, D) of the chosen rows of each class, in float64."""
    sums = np.zeros((count, units.shape[1]))
    rows = np.flatnonzero(chosen)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        np.add.at(sums, codes[some], units[some])
    return sums


# ---- other classes


def _nearest_other(units: Floats, codes: Indices, centres: Floats) -> tuple[NDArray[np.float64], Indices]:
    """(cosine to the nearest centre of another class, its place), both (N,); -inf and -1 where there is none."""
    other, place = np.full(len(units), -np.inf), np.full(len(units), -1, np.int64)
    if len(centres) < 2:
        return other, place
    for start, slab in Similarities(units, centres).slabs():
        rows, here = np.arange(len(slab)), slice(start, start + len(slab))
        slab[rows, codes[here]] = -np.inf
        place[here] = slab.argmax(axis=1)
        other[here] = slab[rows, place[here]]
    return other, place


def _close(units: Floats, codes: Indices, centres: Floats, close: float | None, far: float | None) -> list[ClosePair]:
    """Pairs of classes that are probably one person, highest cosine first, each once."""
    if close is None or far is None or len(centres) < 2:
        return []
    order, ends = np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=len(centres)))

    def mostly_near(place: int, other: int) -> bool:
        members = order[ends[place - 1] if place else 0 : ends[place]]
        near = np.count_nonzero(units[members] @ centres[other] >= far)
        return bool(2 * near >= len(members) and near >= min(2, len(members)))

    near = _nearest_classes(centres, close)
    # A wrong picture in a class of two is half of its centre, and pulls it to its own person's: one is not enough.
    both = (pair for pair in near if mostly_near(pair.first, pair.second) and mostly_near(pair.second, pair.first))
    return sorted(both, key=lambda pair: -pair.cosine)


def _nearest_classes(centres: Floats, least: float) -> list[ClosePair]:
    """Each class with its nearest other, where their cosine is at least `least`; a pair once."""
    found: dict[tuple[int, int], float] = {}
    for start, slab in Similarities(centres, centres).slabs():
        hide_self(slab, start)
        nearest = slab.argmax(axis=1)
        cosines = slab[np.arange(len(slab)), nearest]
        for i in np.flatnonzero(cosines >= least).tolist():
            a, b = start + i, int(nearest[i])
            found.setdefault((min(a, b), max(a, b)), float(cosines[i]))
    return [ClosePair(a, b, cosine) for (a, b), cosine in found.items()]


# ---- what is suspicious


def _threshold(own: NDArray[np.float64], below: float) -> float | None:
    """The cosine so many robust standard deviations below the median; None where no picture has a companion."""
    known = own[np.isfinite(own)]
    if not len(known):
        return None
    middle = float(np.median(known))
    return middle - below * max(1.4826 * float(np.median(np.abs(known - middle))), LEAST_SPREAD)


def _same_person(codes: Indices, other_class: Indices, pairs: list[ClosePair]) -> NDArray[np.bool_]:
    """Whether (N,) the nearest other class of each picture is close to its own."""
    count = int(codes.max(initial=0)) + 1
    low, high = np.minimum(codes, other_class), np.maximum(codes, other_class)
    return np.isin(low * count + high, [pair.first * count + pair.second for pair in pairs])


def _reasons(
    own: NDArray[np.float64], other: NDArray[np.float64], codes: Indices, far: float | None
) -> NDArray[np.int64]:
    """The place in REASONS (N,), negative for a picture that is not suspected."""
    reason = np.full(len(own), NONE, np.int64)
    if far is None:
        return reason
    nearer = (other > own) & (other >= far)
    reason[own < far] = REASONS.index(FAR)
    reason[nearer] = REASONS.index(NEARER)
    sizes = np.bincount(codes)
    # In a class of two both have the same cosine to "the other": where one of them explains it, the other is free.
    explained = np.bincount(codes, weights=nearer)[codes] > 0
    two = (sizes[codes] == 2) & (reason == REASONS.index(FAR))
    reason[two] = np.where(explained[two], CLEARED, REASONS.index(PAIR))
    return reason
