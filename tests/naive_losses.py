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


def arcmargin_logits(x, y, weight, scale=80.0, margin=0.15, easy_margin=False, extra=0.0):
    margin = margin + extra
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


def cosines(x, weight):
    return [max(-1.0, min(1.0, dot(unit(x), unit(w)))) for w in weight]


def arc(c, margin, easy_margin=False):
    theta = math.acos(c)
    if easy_margin:
        return math.cos(theta + margin) if c > 0 else c
    return math.cos(theta + margin) if theta < math.pi - margin else c - margin * math.sin(margin)


def amsoftmax_logits(x, y, weight, scale=30.0, margin=0.35, easy_margin=False, extra=0.0):
    c = cosines(x, weight)
    if not easy_margin or c[y] > margin + extra:
        c[y] -= margin + extra
    return [scale * v for v in c]


def sphereface_lambda(t, base=1000.0, gamma=0.12, least=5.0):
    return max(least, base / (1.0 + gamma * t))


def sphereface_logits(x, y, weight, scale=64.0, margin=4.0, annealing=0.0):
    c = cosines(x, weight)
    theta, k = math.acos(c[y]), 0
    while theta > (k + 1) * math.pi / margin:
        k += 1
    psi = (-1) ** k * math.cos(margin * theta) - 2 * k
    c[y] = (annealing * c[y] + psi) / (1.0 + annealing)
    return [scale * v for v in c]


def clipped(value, low, high):
    return max(low, min(high, value))


def magface_logits(
    x, y, weight, scale=64.0, l_a=10.0, u_a=110.0, l_margin=0.45, u_margin=0.8, easy_margin=False, extra=0.0
):
    c = cosines(x, weight)
    a = clipped(math.sqrt(dot(x, x)), l_a, u_a)
    margin = l_margin + (a - l_a) / (u_a - l_a) * (u_margin - l_margin)
    c[y] = arc(c[y], margin + extra, easy_margin)
    return [scale * v for v in c]


def magface_penalty(x, l_a=10.0, u_a=110.0, lambda_g=35.0):
    a = clipped(math.sqrt(dot(x, x)), l_a, u_a)
    return lambda_g * (a / u_a**2 + 1.0 / a)


def curricularface_t(x, labels, weight, t=0.0, rate=0.01):
    return rate * mean([cosines(v, weight)[y] for v, y in zip(x, labels, strict=True)]) + (1.0 - rate) * t


def curricularface_logits(x, y, weight, t, scale=64.0, margin=0.5, extra=0.0):
    c = cosines(x, weight)
    bound = math.cos(math.acos(c[y]) + margin + extra)
    logits = [scale * v * (t + v) if v > bound else scale * v for v in c]
    logits[y] = scale * arc(c[y], margin + extra)
    return logits


def adaface_averages(x, average=20.0, deviation=100.0, rate=0.01):
    norms = [clipped(math.sqrt(dot(v, v)), 0.001, 100.0) for v in x]
    middle = mean(norms)
    if len(x) > 1:
        spread = math.sqrt(sum((n - middle) ** 2 for n in norms) / (len(x) - 1))
        deviation = rate * spread + (1.0 - rate) * deviation
    return rate * middle + (1.0 - rate) * average, deviation


def adaface_z(x, average, deviation, h=0.333):
    norm = clipped(math.sqrt(dot(x, x)), 0.001, 100.0)
    return clipped((norm - average) / (deviation + 0.001) * h, -1.0, 1.0)


def adaface_logits(x, y, weight, z, scale=64.0, margin=0.4, extra=0.0):
    c, m = cosines(x, weight), margin + extra
    c[y] = math.cos(clipped(math.acos(c[y]) - m * z, 0.0, math.pi)) - (m + m * z)
    return [scale * v for v in c]


def bce_logits(x, y, weight, bias):
    """The first class has no logit of its own."""
    return [0.0] + [dot(x, w) + b for w, b in zip(weight[1:], bias[1:], strict=True)]


def cross_entropy(all_logits, labels, gamma=0.0):
    return mean(cross_entropies(all_logits, labels, gamma))


def cross_entropies(all_logits, labels, gamma=0.0, smoothing=0.0):
    found = []
    for logits, y in zip(all_logits, labels, strict=True):
        log_p = [v - log_sum_exp(logits) for v in logits]
        target = [smoothing / len(logits) + (1.0 - smoothing if j == y else 0.0) for j in range(len(logits))]
        cost = -sum(q * p for q, p in zip(target, log_p, strict=True))
        found.append((1.0 - math.exp(log_p[y])) ** gamma * cost)
    return found


def weighted_mean(costs, added, labels, weights=None):
    w = [1.0 if weights is None else weights[y] for y in labels]
    return sum(v * (c + a) for v, c, a in zip(w, costs, added, strict=True)) / sum(w)


# Pair-wise: each gives the loss of a batch. With `anchors`, only the first so many samples are the batch; the rest are
# past ones that it is compared with.


def anchors_of(x, anchors):
    return range(len(x) if anchors is None else anchors)


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


def triplet_batch_hard(x, labels, margin=0.1, soft=False, anchors=None):
    x = [unit(v) for v in x]
    losses = []
    for a in anchors_of(x, anchors):
        pos = [squared(x[a], x[p]) for p in positives(labels, a)]
        neg = [squared(x[a], x[n]) for n in negatives(labels, a)]
        if pos and neg:
            gap = max(pos) - min(neg)
            losses.append(softplus(gap) if soft else max(gap + margin, 0.0))
    return mean(losses)


def triplet_semi_hard(x, labels, margin=0.1, soft=False, anchors=None):
    x = [unit(v) for v in x]
    losses = []
    for a in anchors_of(x, anchors):
        neg = [squared(x[a], x[n]) for n in negatives(labels, a)]
        for p in positives(labels, a):
            if neg:
                d_ap = squared(x[a], x[p])
                farther = [d for d in neg if d > d_ap]
                gap = d_ap - (min(farther) if farther else max(neg))
                losses.append(softplus(gap) if soft else max(gap + margin, 0.0))
    return mean(losses)


def triplet_batch_all(x, labels, margin=0.1, soft=False, anchors=None):
    x = [unit(v) for v in x]
    losses = []
    for a in anchors_of(x, anchors):
        for p in positives(labels, a):
            for n in negatives(labels, a):
                gap = squared(x[a], x[p]) - squared(x[a], x[n])
                losses.append(softplus(gap) if soft else max(gap + margin, 0.0))
    return mean(losses if soft else [loss for loss in losses if loss > 0.0])


def quadruplet(x, labels, margin=0.1, anchors=None):
    x = [unit(v) for v in x]
    pos = [squared(x[a], x[p]) for a in anchors_of(x, anchors) for p in positives(labels, a)]
    neg = [squared(x[a], x[n]) for a in anchors_of(x, anchors) for n in negatives(labels, a)]
    return max(max(pos) - min(neg) + margin, 0.0) if pos and neg else 0.0


def quadruplet_full_given(x, labels, margin=0.1, second=0.05):
    x = [unit(v) for v in x]
    losses = []
    for i in range(0, len(x), 4):
        a, p, n1, n2 = x[i : i + 4]
        first = max(squared(a, p) - squared(a, n1) + margin, 0.0)
        losses.append(first + max(squared(a, p) - squared(n1, n2) + second, 0.0))
    return mean(losses)


def quadruplet_full_batch_hard(x, labels, margin=0.1, second=0.05, anchors=None):
    x = [unit(v) for v in x]
    losses = []
    for a in anchors_of(x, anchors):
        pos = [squared(x[a], x[p]) for p in positives(labels, a)]
        others = negatives(labels, a)
        near = [i for i in others if i in anchors_of(x, anchors)]
        strangers = [squared(x[i], x[j]) for i in near for j in others if labels[i] != labels[j]]
        if pos and strangers:
            first = max(max(pos) - min(squared(x[a], x[n]) for n in others) + margin, 0.0)
            losses.append(first + max(max(pos) - min(strangers) + second, 0.0))
    return mean(losses)


def eml(x, labels, beta=1e5, anchors=None):
    losses = []
    for a in anchors_of(x, anchors):
        pos = [squared(x[a], x[p]) for p in positives(labels, a)]
        neg = [-squared(x[a], x[n]) for n in negatives(labels, a)]
        if pos and neg:
            u = log_sum_exp(pos) - math.log(len(pos)) + log_sum_exp(neg) - math.log(len(neg))
            losses.append(softplus(math.log(beta) + u) / math.log(1.0 + beta))
    return mean(losses)


def npairs(x, labels, reg_lambda=0.01, anchors=None):
    batch = anchors_of(x, anchors)
    firsts = [i for i in batch if labels[i] not in labels[:i]]
    others = [i for i in range(len(x)) if i not in firsts]
    firsts = [a for a in firsts if positives(labels, a)]
    if not firsts or len({labels[i] for i in others}) < 2:
        return 0.0
    entropies = []
    for a in firsts:
        logits = [dot(x[a], x[i]) for i in others]
        own = [z for z, i in zip(logits, others, strict=True) if labels[i] == labels[a]]
        entropies.append(log_sum_exp(logits) - mean(own))
    used = firsts + [i for i in others if i in batch]
    return mean(entropies) + 0.5 * reg_lambda * mean([dot(x[i], x[i]) for i in used])


def contrastive(x, labels, pos_margin=0.0, neg_margin=0.5, anchors=None):
    x, pull, push = [unit(v) for v in x], [], []
    for a in anchors_of(x, anchors):
        pull += [math.sqrt(squared(x[a], x[p])) - pos_margin for p in positives(labels, a)]
        push += [neg_margin - math.sqrt(squared(x[a], x[n])) for n in negatives(labels, a)]
    return mean([t for t in pull if t > 0]) + mean([t for t in push if t > 0])


def multi_similarity(x, labels, alpha=2.0, beta=50.0, base=0.5, epsilon=0.1, anchors=None):
    x, losses = [unit(v) for v in x], []
    for a in anchors_of(x, anchors):
        pos = [dot(x[a], x[p]) for p in positives(labels, a)]
        neg = [dot(x[a], x[n]) for n in negatives(labels, a)]
        if pos and neg:
            hard_pos = [s for s in pos if s < max(neg) + epsilon]
            hard_neg = [s for s in neg if s > min(pos) - epsilon]
            near = math.log(1.0 + sum(math.exp(-alpha * (s - base)) for s in hard_pos)) / alpha
            losses.append(near + math.log(1.0 + sum(math.exp(beta * (s - base)) for s in hard_neg)) / beta)
    return mean(losses)


def circle(x, labels, margin=0.4, gamma=80.0, anchors=None, weights_at=None):
    """weights_at: embeddings that the weights are taken from, where these are to stay while x moves."""
    x = [unit(v) for v in x]
    w = x if weights_at is None else [unit(v) for v in weights_at]
    losses = []
    for a in anchors_of(x, anchors):
        pos = [(dot(x[a], x[p]), max(1 + margin - dot(w[a], w[p]), 0.0)) for p in positives(labels, a)]
        neg = [(dot(x[a], x[n]), max(dot(w[a], w[n]) + margin, 0.0)) for n in negatives(labels, a)]
        if pos and neg:
            near = log_sum_exp([-gamma * weight * (s - 1 + margin) for s, weight in pos])
            losses.append(softplus(near + log_sum_exp([gamma * weight * (s - margin) for s, weight in neg])))
    return mean(losses)


def supcon(x, labels, temperature=0.1, anchors=None):
    x, losses = [unit(v) for v in x], []
    for a in anchors_of(x, anchors):
        own, others = positives(labels, a), negatives(labels, a)
        if own and others:
            everyone = log_sum_exp([dot(x[a], x[i]) / temperature for i in own + others])
            losses.append(mean([everyone - dot(x[a], x[p]) / temperature for p in own]))
    return mean(losses)


def sigmoid(z):
    return 1.0 / (1.0 + math.exp(-z)) if z > 0 else math.exp(z) / (1.0 + math.exp(z))


def recall_at_k(x, labels, ks=(1, 2, 4, 8, 16), tau1=1.0, tau2=0.01, anchors=None):
    x, losses = [unit(v) for v in x], []
    for a in anchors_of(x, anchors):
        own, others = positives(labels, a), negatives(labels, a)
        ranks = []
        for p in own:
            rivals = [z for z in own + others if z != p]
            ranks.append(1.0 + sum(sigmoid((dot(x[a], x[z]) - dot(x[a], x[p])) / tau2) for z in rivals))
        if own and others:
            found = [min(k, sum(sigmoid((k - rank) / tau1) for rank in ranks)) / min(k, len(own)) for k in ks]
            losses.append(1.0 - mean(found))
    return mean(losses)


class Memory:
    """A naive pair loss against the batch and up to `size` embeddings of the batches since `start`."""

    def __init__(self, naive, size, start):
        self.naive, self.size, self.start = naive, size, start
        self.past, self.batches = [], 0

    def value(self, x, labels):
        kept = [v for v, _ in self.past]
        return self.naive(list(x) + kept, list(labels) + [y for _, y in self.past], anchors=len(x))

    def enter(self, x, labels):
        self.batches += 1
        if self.batches > self.start:
            self.past = (self.past + list(zip(x, labels, strict=True)))[-self.size :]
