"""Embeddings on paper: two dimensions in which neighbours stay neighbours."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.metrics.cosine import Indices, labels_of, unit_rows

Points = NDArray[np.float64]

PERPLEXITY = 20.0  # how many neighbours a picture has, more or less
STEPS, EXAGGERATED = 350, 100
EXAGGERATION = 12.0
BISECTIONS = 40
TINY = 1e-12


def principal_axes(embeddings: ArrayLike) -> tuple[Points, NDArray[np.float64]]:
    """embeddings (N, D) -> (coordinates along the two directions of most variance (N, 2), shares of the variance (2,)).

    Of the rows made unit length. The sign of an axis is such that its largest coordinate is positive.
    """
    rows = unit_rows(embeddings).astype(np.float64)
    points, shares = np.zeros((len(rows), 2)), np.zeros(2)
    if not rows.size:
        return points, shares
    rows -= rows.mean(axis=0)
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    kept = min(2, len(values))
    points[:, :kept] = left[:, :kept] * values[:kept]
    points *= np.where(points[np.abs(points).argmax(axis=0), range(2)] < 0, -1.0, 1.0)
    total = float(np.square(values).sum())
    shares[:kept] = np.square(values[:kept]) / total if total else 0.0
    return points, shares


def neighbour_map(embeddings: ArrayLike, perplexity: float = PERPLEXITY, steps: int = STEPS) -> Points:
    """embeddings (N, D) -> points (N, 2) by t-SNE: what is near in the one is near in the other.

    van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 9, 2008; begun from the principal axes (Kobak and
    Berens, 2019), so that nothing is random. Exact, over all N x N pairs: for some thousand rows at most. Distances
    between clusters, and their sizes, mean little. Fewer than four rows are returned along their principal axes.
    """
    start, _ = principal_axes(embeddings)
    if len(start) < 4:
        return start
    rows = unit_rows(embeddings).astype(np.float64)
    wanted = affinities(rows, min(perplexity, (len(rows) - 1) / 3))
    exaggerated = EXAGGERATION * wanted
    points = 1e-4 * start / max(float(start[:, 0].std()), TINY)
    speed, gains = np.zeros_like(points), np.ones_like(points)
    rate = max(len(rows) / EXAGGERATION, 50.0)
    for step in range(steps):
        early = step < EXAGGERATED
        slope = gradient(exaggerated if early else wanted, points)
        gains = np.maximum(np.where(slope * speed > 0, 0.8 * gains, gains + 0.2), 0.01)
        speed = (0.5 if early else 0.8) * speed - rate * gains * slope
        points = points + speed
        points -= points.mean(axis=0)
    return points


def affinities(rows: Points, perplexity: float) -> Points:
    """rows (N, D) -> p (N, N), summing to 1: how much of a neighbour each is to each; equations 1 and the mean of both.

    Each row's width is found by bisection, so that the entropy of its neighbours is log(perplexity).
    """
    distances = _squared_distances(rows)
    np.fill_diagonal(distances, np.inf)
    distances -= distances.min(axis=1, keepdims=True)  # for exp; each row is normalised anyway
    low, high = np.zeros(len(rows)), np.full(len(rows), np.inf)
    width = np.ones(len(rows))
    finite = np.where(np.isfinite(distances), distances, 0.0)
    for _ in range(BISECTIONS):
        p = np.exp(-distances * width[:, None])
        total = p.sum(axis=1)
        entropy = np.log(total) + width * (finite * p).sum(axis=1) / total
        flat = entropy > np.log(perplexity)
        low, high = np.where(flat, width, low), np.where(flat, high, width)
        width = np.where(np.isinf(high), 2 * width, (low + np.where(np.isinf(high), 0.0, high)) / 2)
    p = np.exp(-distances * width[:, None])
    p /= p.sum(axis=1, keepdims=True)
    return np.asarray((p + p.T) / (2 * len(rows)))


def divergence(wanted: Points, points: Points) -> float:
    """The Kullback-Leibler divergence of the points' neighbourhoods (equation 4) from those wanted."""
    near = _nearness(points)
    q, there = near / near.sum(), wanted > 0
    return float((wanted[there] * np.log(wanted[there] / np.maximum(q[there], TINY))).sum())


def gradient(wanted: Points, points: Points) -> Points:
    """The gradient (N, 2) of the divergence in the points; equation 5."""
    near = _nearness(points)
    pull = near * (-1.0 / near.sum())
    pull += wanted
    pull *= near
    return np.asarray(4.0 * (pull.sum(axis=1)[:, None] * points - pull @ points))


def _nearness(points: Points) -> Points:
    near = _squared_distances(points)
    near += 1.0
    np.reciprocal(near, out=near)
    np.fill_diagonal(near, 0.0)
    return near


def _squared_distances(rows: Points) -> Points:
    squares = np.einsum("nd,nd->n", rows, rows)
    found = rows @ (-2.0 * rows.T)
    found += squares[:, None]
    found += squares
    return np.maximum(found, 0.0, out=found)


def map_sample(labels: ArrayLike, groups: ArrayLike | None, most: int, of_class: int = 40, seed: int = 0) -> Indices:
    """labels (N,), groups (N,) or None -> at most `most` indices, ascending: whole classes, as many of each group.

    Of one class at most `of_class` pictures; classes of one picture come last, as they have no neighbour to be near to.
    """
    names = np.asarray(labels)
    where = np.zeros(len(names)) if groups is None else labels_of(groups, len(names), "groups")
    rng = np.random.default_rng(seed)
    classes, codes = np.unique(names, return_inverse=True)
    order = np.argsort(codes.ravel(), kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes.ravel(), minlength=len(classes)))[:-1])
    drawn = [members[i][:of_class] for i in rng.permutation(len(classes))]
    drawn.sort(key=lambda rows: len(rows) < 2)
    turn: dict[object, int] = {}
    places = []
    for rows in drawn:
        group = where[rows[0]].item()
        places.append(turn.get(group, 0))
        turn[group] = places[-1] + len(rows)
    chosen: list[int] = []
    for i in sorted(range(len(drawn)), key=lambda i: places[i]):
        chosen += drawn[i].tolist()[: most - len(chosen)]
    return np.array(sorted(chosen), np.int64)
