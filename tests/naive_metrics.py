"""The metrics again, as plain loops in float64 over everything at once. Imports nothing from the package."""

import math
from fractions import Fraction


def cosine(x, y):
    lengths = math.sqrt(sum(float(a) ** 2 for a in x)) * math.sqrt(sum(float(b) ** 2 for b in y))
    return sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) / lengths if lengths else 0.0


def ranking(query, gallery, without=None):
    """Gallery indices, nearest first, the lowest index first among equals."""
    scored = [(-cosine(query, other), j) for j, other in enumerate(gallery) if j != without]
    return [j for _, j in sorted(scored)]


def retrieval(embeddings, labels, gallery=None, gallery_labels=None, ks=(1, 10)):
    alone = gallery is None
    gallery, gallery_labels = (embeddings, labels) if alone else (gallery, gallery_labels)
    total = {}
    queries = valid = 0
    for i, query in enumerate(embeddings):
        queries += 1
        order = ranking(query, gallery, without=i if alone else None)
        hits = [gallery_labels[j] == labels[i] for j in order]
        r = sum(hits)
        if r == 0:
            continue
        valid += 1
        precision = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
        row = {
            "r_precision": sum(hits[:r]) / r,
            "map@r": sum(precision[n] for n in range(r) if hits[n]) / r,
            "map": sum(precision[n] for n in range(len(hits)) if hits[n]) / r,
        }
        for k in ks:
            row[f"recall@{k}"] = float(any(hits[:k]))
            row[f"precision@{k}"] = sum(hits[:k]) / k
        for name, value in row.items():
            total[name] = total.get(name, 0.0) + value
    result = {"queries": queries, "valid": valid, "without_positive": queries - valid}
    names = ["r_precision", "map@r", "map", *(f"{what}@{k}" for what in ("recall", "precision") for k in ks)]
    for name in names:
        result[name] = total[name] / valid if valid else None
    for k in ks:
        result[f"recall_all@{k}"] = total.get(f"recall@{k}", 0.0) / queries if queries else None
    return result


def share_accepted(scores, threshold):
    return Fraction(sum(s >= threshold for s in scores), len(scores))


def loosest_threshold(negatives, far, above=lambda score: math.nextafter(score, math.inf)):
    """The lowest float with a false-accept rate of at most far; None if one false accept is too many.

    above: the float that follows a score.
    """
    if not negatives or Fraction(1, len(negatives)) > Fraction(str(far)):
        return None
    candidates = sorted(above(s) for s in negatives)
    return next(t for t in candidates if share_accepted(negatives, t) <= Fraction(str(far)))


def area_under_curve(positives, negatives):
    if not positives or not negatives:
        return None
    wins = sum(
        Fraction(1) if p > n else Fraction(1, 2) if p == n else Fraction(0) for p in positives for n in negatives
    )
    return float(wins / (len(positives) * len(negatives)))


def equal_error_rate(positives, negatives):
    """Walk the threshold up past every score; where FRR - FAR changes sign, go along the straight line of that step."""
    if not positives or not negatives:
        return None
    frr, far = Fraction(0), Fraction(1)
    for score in sorted({*positives, *negatives}):
        next_frr = Fraction(sum(p <= score for p in positives), len(positives))
        next_far = Fraction(sum(n > score for n in negatives), len(negatives))
        if next_frr >= next_far:
            share = (far - frr) / ((next_frr - frr) + (far - next_far))
            return float(frr + share * (next_frr - frr))
        frr, far = next_frr, next_far
    raise AssertionError("above every score FRR is 1 and FAR 0")


def unordered_pairs(embeddings, labels, groups):
    """group -> (positive scores, negative scores)"""
    found = {group: ([], []) for group in groups}
    for i in range(len(embeddings)):
        for j in range(i):
            if groups[i] == groups[j]:
                found[groups[i]][labels[i] != labels[j]].append(cosine(embeddings[i], embeddings[j]))
    return found


def best_threshold(scores, same):
    """(pairs judged right, threshold): each score from the lowest up, then one above them all; the first best wins."""
    best, threshold = -1, None
    for candidate in [*sorted(scores), math.inf]:
        right = sum((score >= candidate) == bool(truth) for score, truth in zip(scores, same, strict=True))
        if right > best:
            best, threshold = right, candidate
    return best, threshold


def fold_accuracies(scores, same, folds):
    """Accuracy of each fold; folds: how many, contiguous, or the fold of each pair."""
    if isinstance(folds, int):
        sizes = [len(scores) // folds + (f < len(scores) % folds) for f in range(folds)]
        folds = [f for f, size in enumerate(sizes) for _ in range(size)]
    accuracies = []
    for fold in sorted(set(folds)):
        train = [i for i in range(len(scores)) if folds[i] != fold]
        test = [i for i in range(len(scores)) if folds[i] == fold]
        _, threshold = best_threshold([scores[i] for i in train], [same[i] for i in train])
        accuracies.append(sum((scores[i] >= threshold) == bool(same[i]) for i in test) / len(test))
    return accuracies


def template_rows(embeddings, templates, media):
    """Template name -> its row of length 1 (or of zeros): mean within each medium, sum over media."""
    found = {}
    for template in sorted(set(templates)):
        total = [0.0] * len(embeddings[0])
        for medium in sorted({m for m, t in zip(media, templates, strict=True) if t == template}):
            rows = [i for i, t in enumerate(templates) if t == template and media[i] == medium]
            total = [x + sum(float(embeddings[i][d]) for i in rows) / len(rows) for d, x in enumerate(total)]
        length = math.sqrt(sum(x * x for x in total))
        found[template] = [x / length if length else 0.0 for x in total]
    return found
