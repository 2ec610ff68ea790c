"""The losses once more, slowly: plain loops in float64, written from the formulas, nothing imported from the package.

x is a list of B embeddings (lists of D floats), labels a list of B integers, weight a list of C centres.
"""

import math


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def squared(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def unit(a):
    norm = math.sqrt(dot(a, a))
    return [p / norm for p in a] if norm > 0 else list(a)


def softplus(z):
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def log_sum_exp(values):
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def mean(values):
    return sum(values) / len(values) if values else 0.0


# Element-wise: each gives the logits of one sample.


def softmax_logits(x, y, weight, bias):
    return [dot(x, w) + b for w, b in zip(weight, bias, strict=True)]


def arcmargin_logits(x, y, weight, scale=80.0, margin=0.15, easy_margin=False):
    logits = []
    for j, w in enumerate(weight):
        c = max(-1.0, min(1.0, dot(unit(x), unit(w))))
        if j == y:
            theta = math.acos(c)
            if easy_margin:
                c = math.cos(theta + margin) if c > 0 else c
            elif theta < math.pi - margin:
                c = math.cos(theta + margin)
            else:
                c = c - margin * math.sin(margin)
        logits.append(scale * c)
    return logits


def cross_entropy(all_logits, labels, gamma=0.0):
    total = 0.0
    for logits, y in zip(all_logits, labels, strict=True):
        entropy = log_sum_exp(logits) - logits[y]
        total += (1.0 - math.exp(-entropy)) ** gamma * entropy
    return total / len(labels)


# Pair-wise: each gives the loss of a batch.


def positives(labels, a):
    return [i for i in range(len(labels)) if i != a and labels[i] == labels[a]]


def negatives(labels, a):
    return [i for i in range(len(labels)) if labels[i] != labels[a]]


def triplet_given(x, labels, margin=0.1, soft=False):
    x = [unit(v) for v in x]
    losses = []
    for i in range(0, len(x), 3):
        gap = squared(x[i], x[i + 1]) - squared(x[i], x[i + 2])
        losses.append(softplus(gap) if soft else max(gap + margin, 0.0))
    return mean(losses)


def triplet_batch_hard(x, labels, margin=0.1, soft=False):
    x = [unit(v) for v in x]
    losses = []
    for a in range(len(x)):
        pos = [squared(x[a], x[p]) for p in positives(labels, a)]
        neg = [squared(x[a], x[n]) for n in negatives(labels, a)]
        if pos and neg:
            gap = max(pos) - min(neg)
            losses.append(softplus(gap) if soft else max(gap + margin, 0.0))
    return mean(losses)


def triplet_semi_hard(x, labels, margin=0.1, soft=False):
    x = [unit(v) for v in x]
    losses = []
    for a in range(len(x)):
        neg = [squared(x[a], x[n]) for n in negatives(labels, a)]
        for p in positives(labels, a):
            if neg:
                d_ap = squared(x[a], x[p])
                farther = [d for d in neg if d > d_ap]
                gap = d_ap - (min(farther) if farther else max(neg))
                losses.append(softplus(gap) if soft else max(gap + margin, 0.0))
    return mean(losses)


def triplet_batch_all(x, labels, margin=0.1, soft=False):
    x = [unit(v) for v in x]
    losses = []
    for a in range(len(x)):
        for p in positives(labels, a):
            for n in negatives(labels, a):
                gap = squared(x[a], x[p]) - squared(x[a], x[n])
                losses.append(softplus(gap) if soft else max(gap + margin, 0.0))
    return mean(losses if soft else [loss for loss in losses if loss > 0.0])


def quadruplet(x, labels, margin=0.1):
    x = [unit(v) for v in x]
    pos = [squared(x[a], x[p]) for a in range(len(x)) for p in positives(labels, a)]
    neg = [squared(x[a], x[n]) for a in range(len(x)) for n in negatives(labels, a)]
    return max(max(pos) - min(neg) + margin, 0.0) if pos and neg else 0.0


def quadruplet_full_given(x, labels, margin=0.1, second=0.05):
    x = [unit(v) for v in x]
    losses = []
    for i in range(0, len(x), 4):
        a, p, n1, n2 = x[i : i + 4]
        first = max(squared(a, p) - squared(a, n1) + margin, 0.0)
        losses.append(first + max(squared(a, p) - squared(n1, n2) + second, 0.0))
    return mean(losses)


def quadruplet_full_batch_hard(x, labels, margin=0.1, second=0.05):
    x = [unit(v) for v in x]
    losses = []
    for a in range(len(x)):
        pos = [squared(x[a], x[p]) for p in positives(labels, a)]
        others = negatives(labels, a)
        strangers = [squared(x[i], x[j]) for i in others for j in others if labels[i] != labels[j]]
        if pos and strangers:
            first = max(max(pos) - min(squared(x[a], x[n]) for n in others) + margin, 0.0)
            losses.append(first + max(max(pos) - min(strangers) + second, 0.0))
    return mean(losses)


def eml(x, labels, beta=1e5):
    losses = []
    for a in range(len(x)):
        pos = [squared(x[a], x[p]) for p in positives(labels, a)]
        neg = [-squared(x[a], x[n]) for n in negatives(labels, a)]
        if pos and neg:
            u = log_sum_exp(pos) - math.log(len(pos)) + log_sum_exp(neg) - math.log(len(neg))
            losses.append(softplus(math.log(beta) + u) / math.log(1.0 + beta))
    return mean(losses)


def npairs(x, labels, reg_lambda=0.01):
    several = [c for c in sorted(set(labels)) if labels.count(c) >= 2]
    if len(several) < 2:
        return 0.0
    anchors = [labels.index(c) for c in several]
    others = [i for i in range(len(x)) if labels[i] in several and i not in anchors]
    entropies = []
    for a in anchors:
        logits = [dot(x[a], x[i]) for i in others]
        own = [z for z, i in zip(logits, others, strict=True) if labels[i] == labels[a]]
        entropies.append(log_sum_exp(logits) - mean(own))
    return mean(entropies) + 0.5 * reg_lambda * mean([dot(x[i], x[i]) for i in anchors + others])
