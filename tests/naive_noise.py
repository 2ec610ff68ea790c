"""The two lists of probably wrong labels again, as loops in float64. Imports nothing from the package."""

import math
import statistics


def label_errors(probabilities, labels):
    """(wrong: (index, label, suggested, margin), most suspicious first; thresholds; joint; noise rate)"""
    classes = range(len(probabilities[0]))
    thresholds = []
    for j in classes:
        own = [row[j] for row, label in zip(probabilities, labels, strict=True) if label == j]
        thresholds.append(math.fsum(own) / len(own) if own else math.inf)
    joint = [[0 for _ in classes] for _ in classes]
    wrong = []
    for i, (row, label) in enumerate(zip(probabilities, labels, strict=True)):
        reached = [j for j in classes if row[j] >= thresholds[j] - 1e-9]
        if not reached:
            continue
        best = max(row[j] for j in reached)
        equal = [j for j in reached if row[j] == best]
        belongs = label if label in equal else equal[0]
        joint[label][belongs] += 1
        if belongs != label:
            wrong.append((i, label, belongs, row[label] - max(row[j] for j in classes if j != label)))
    wrong.sort(key=lambda found: (found[3], found[0]))
    expected = 0.0
    for j in classes:
        size = sum(label == j for label in labels)
        if size:
            expected += size * (sum(joint[j]) - joint[j][j]) / sum(joint[j])
    return wrong, thresholds, joint, expected / len(labels)


def unit(row):
    length = math.sqrt(math.fsum(x * x for x in row))
    return [x / length for x in row] if length else [0.0 for _ in row]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def centre(rows):
    return unit([math.fsum(column) for column in zip(*rows, strict=True)])


def own_cosines(units, members, kept=0.75):
    """Picture -> cosine to the centre of the others, of which all, then twice the best `kept` count."""
    ranking = list(members)
    for share in (1.0, kept, kept):
        count = math.ceil(share * (len(members) - 1))
        found = {}
        for i in members:
            others = [j for j in ranking if j != i][:count]
            found[i] = dot(units[i], centre([units[j] for j in others])) if others else math.inf
        ranking = sorted(members, key=lambda i: (-found[i], i))
    return found, ranking


def identity_errors(embeddings, labels, far, close, kept=0.75):
    """(own, other, other label, suspects: (index, reason), close pairs: (label, label) -> cosine)"""
    units = [unit(row) for row in embeddings]
    own, centres = {}, {}
    for label in sorted(set(labels)):
        members = [i for i, other in enumerate(labels) if other == label]
        found, ranking = own_cosines(units, members, kept)
        own |= found
        centres[label] = centre([units[i] for i in ranking[: math.ceil(kept * len(members))]])
    other, whose = {}, {}
    for i, label in enumerate(labels):
        cosines = {name: dot(units[i], c) for name, c in centres.items() if name != label}
        other[i] = max(cosines.values(), default=-math.inf)
        whose[i] = next((name for name, cosine in cosines.items() if cosine == other[i]), None)
    known = [cosine for cosine in own.values() if cosine < math.inf]
    if not known:
        return own, other, whose, [], {}
    middle = statistics.median(known)
    spread = max(1.4826 * statistics.median([abs(cosine - middle) for cosine in known]), 1e-3)
    limit, near = middle - far * spread, middle - close * spread
    pairs = {}
    for label, mine in centres.items():
        cosines = {name: dot(mine, c) for name, c in centres.items() if name != label}
        if cosines and max(cosines.values()) >= near:
            nearest = max(cosines, key=lambda name: cosines[name])
            shares = []
            for one, two in ((label, nearest), (nearest, label)):
                members = [i for i, name in enumerate(labels) if name == one]
                count = sum(dot(units[i], centres[two]) >= limit for i in members)
                shares.append(count / len(members) if count > 1 or count == len(members) else 0.0)
            if min(shares) >= 0.5:
                pairs[min(label, nearest), max(label, nearest)] = cosines[nearest]
    reasons, rival = {}, {}
    for i, label in enumerate(labels):
        same = whose[i] is not None and (min(label, whose[i]), max(label, whose[i])) in pairs
        rival[i] = -math.inf if same else other[i]
        if rival[i] > own[i] and rival[i] >= limit:
            reasons[i] = "nearer"
    for i, label in enumerate(labels):
        if i not in reasons and own[i] < limit:
            companions = [j for j, name in enumerate(labels) if name == label and j != i]
            if len(companions) > 1:
                reasons[i] = "far"
            elif reasons.get(companions[0]) != "nearer":
                reasons[i] = "pair"
    order = sorted(reasons, key=lambda i: (own[i] - max(rival[i], limit), i))
    return own, other, whose, [(i, reasons[i]) for i in order], pairs
