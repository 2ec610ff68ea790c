"""k-reciprocal re-ranking again, by the paper's equations over whole matrices. Imports nothing from the package."""

import math

from naive_metrics import cosine


def final_distances(embeddings, k1, k2, weight):
    """d* of all with all, as the paper has it (Eq. 12), d being 1 - cosine."""
    everyone = range(len(embeddings))
    d = [[1 - cosine(x, y) for y in embeddings] for x in embeddings]

    order = [sorted((j for j in everyone if j != i), key=lambda j, i=i: (d[i][j], j)) for i in everyone]

    def nearest(i, k):  # Eq. 2, the picture itself before all others
        return [i, *order[i][:k]]

    def reciprocal(i, k):  # Eq. 3
        return {j for j in nearest(i, k) if i in nearest(j, k)}

    v = []
    for i in everyone:
        kept = reciprocal(i, k1)
        expanded = set(kept)
        for q in kept:  # Eq. 4
            others = reciprocal(q, (k1 + 1) // 2)
            if len(kept & others) >= 2 / 3 * len(others) - 1e-12:
                expanded |= others
        code = [math.exp(-d[i][j]) if j in expanded else 0.0 for j in everyone]  # Eq. 7
        v.append([value / sum(code) for value in code])  # as in the paper's code
    means = []
    for i in everyone:  # Eq. 11
        near = nearest(i, k2 - 1)
        means.append([sum(v[n][j] for n in near) / len(near) for j in everyone])

    def jaccard(i, j):  # Eq. 10
        least = sum(min(a, b) for a, b in zip(means[i], means[j], strict=True))
        most = sum(max(a, b) for a, b in zip(means[i], means[j], strict=True))
        return 1 - least / most

    return [[(1 - weight) * jaccard(i, j) + weight * d[i][j] for j in everyone] for i in everyone]
