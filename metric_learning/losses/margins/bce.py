"""Two classes by one logit."""

from metric_learning.losses.margins.softmax import Softmax


class Bce(Softmax):
    """Binary cross-entropy -log sigmoid(+-(x.w + b)), + for the second class (label 1).

    The sigmoid of z is the softmax of (0, z). So the margin is that of softmax, and what differs are the centres: the
    first one stays 0 (`centers.ReferenceCenters`).
    """
