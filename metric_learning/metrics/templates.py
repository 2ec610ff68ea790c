"""Templates: one embedding for several pictures of a person, as in IJB."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metric_learning.metrics.cosine import Floats, Indices, labels_of, unit_rows

ROWS_AT_ONCE = 8192


def template_embeddings(
    embeddings: ArrayLike, templates: ArrayLike, media: ArrayLike
) -> tuple[NDArray[np.generic], Floats]:
    """embeddings (N, D), templates (N,), media (N,) -> (names (T,) sorted, unit rows (T, D) float32).

    Pictures of one medium (the frames of a video) are averaged, the media of a template are summed, and the sum is
    scaled to length 1; a sum of zero stays zero. Media of one name in two templates are two. Embeddings are taken as
    they are: a longer one weighs more; give unit rows to have them weigh alike. The convention of IJB-B and IJB-C
    (InsightFace's evaluation; media pooled first as in Crosswhite et al., arXiv 1603.03958). Raises UserError for
    shapes that do not match and rows that are not finite.
    """
    rows = np.asarray(embeddings)
    unit_rows(rows)  # the checks: a matrix of finite numbers
    names, template = np.unique(labels_of(templates, len(rows), "templates"), return_inverse=True)
    _, medium = np.unique(labels_of(media, len(rows), "media"), return_inverse=True)
    order = np.lexsort((medium.ravel(), template.ravel()))
    template, medium = template.ravel()[order], medium.ravel()[order]
    new = np.ones(len(rows), bool)
    new[1:] = (np.diff(template) != 0) | (np.diff(medium) != 0)
    starts = np.flatnonzero(new)
    sums = np.zeros((len(names), rows.shape[1]))
    for first, last in _slices(starts, len(rows)):
        part = rows[order[first:last]].astype(np.float64)
        inside = starts[(starts >= first) & (starts < last)]
        counts = np.diff(np.append(inside, last))
        means = np.add.reduceat(part, inside - first, axis=0) / counts[:, None]
        np.add.at(sums, template[inside], means)
    return names, unit_rows(sums)


def _slices(starts: Indices, count: int) -> list[tuple[int, int]]:
    """Cuts of 0..count at some of the starts, about ROWS_AT_ONCE rows each: no medium is cut in two."""
    cuts = [0]
    for start in starts.tolist():
        if start - cuts[-1] >= ROWS_AT_ONCE:
            cuts.append(start)
    return list(zip(cuts, [*cuts[1:], count], strict=True)) if count else []
