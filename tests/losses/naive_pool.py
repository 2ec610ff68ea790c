"""A pool of class centres once more, slowly: an ordered dictionary, lists, loops in float64, nothing of the package."""

import copy
import math
from collections import OrderedDict

import naive_losses as naive


class NaivePool:
    """rows[r][slot] is a list of D numbers; used: identity -> slot, the least recently used first."""

    def __init__(self, row0, row1):
        self.rows = [[list(v) for v in row0], [list(v) for v in row1]]
        self.used, self.turn = OrderedDict(), {}

    def write(self, features, names):
        for feature, name in zip(features, names, strict=True):
            if name in self.used:
                slot = self.used[name]
                self.rows[self.turn[name]][slot] = naive.unit(feature)
                self.turn[name] = 1 - self.turn[name]
            else:
                if len(self.used) < len(self.rows[0]):
                    slot = len(self.used)
                else:
                    gone, slot = self.used.popitem(last=False)
                    del self.turn[gone]
                self.used[name], self.turn[name] = slot, 1
                self.rows[0][slot] = naive.unit(feature)
                self.rows[1][slot] = naive.unit(feature)
            self.used.move_to_end(name)

    def loss(self, x, labels, logits, gamma=0.0, penalty=lambda v: 0.0):
        """logits(v, slot, weight, row) -> the logits of one sample."""
        inside = [i for i, name in enumerate(labels) if name in self.used]
        outside = [i for i, name in enumerate(labels) if name not in self.used]
        slots = [self.used[labels[i]] for i in inside]
        count = min(max(math.floor(0.0002 * len(self.rows[0])), 3), 10)
        total = 0.0
        for row in (0, 1):
            weight = self.rows[row]
            if inside:
                made = [logits(x[i], slot, weight, row) for i, slot in zip(inside, slots, strict=True)]
                total += naive.cross_entropy(made, slots, gamma) + naive.mean([penalty(x[i]) for i in inside])
            if outside:
                hard = [sorted(naive.cosines(x[i], weight), reverse=True)[:count] for i in outside]
                total += naive.mean([max(c, 0.0) for cosines in hard for c in cosines])
        return total

    def trial(self):
        return copy.deepcopy(self)
