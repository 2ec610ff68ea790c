"""SphereFace: the true class's angle multiplied."""

import math

import paddle
from paddle import Tensor

from metric_learning.checks import check_range
from metric_learning.losses.margins.base import Margin
from metric_learning.ops import sine_of

STEEP = 2.0  # a margin from here on can't be learned from a random start without annealing


class SphereFace(Margin):
    """s (lambda c_y + psi(theta_y)) / (1 + lambda) for the true class, s c_j for the others, with psi(theta) =
    (-1)^k cos(m theta) - 2k for theta in [k pi / m, (k + 1) pi / m]: Liu et al., arXiv 1704.08063, equation 7.

    lambda = max(lambda_min, lambda_base / (1 + lambda_gamma t)), t the training batches so far with this one, a buffer;
    the schedule is the authors' code's. Two forms are in use, and the margin chooses the defaults:
    - m from 2 on (4): lambda_base 1000, lambda_min 5, as the authors trained.
    - m below 2 (1.35): lambda 0. Deng et al. trained it so (1801.07698, table 2); m need not be whole.

    Departs from the paper: it scales by |x| where this has s, which the learning rate then does not depend on.
    psi is continuous, but for m that is not whole its slope at theta = pi is infinite; here it is 0 at exactly c = +-1.

    scale > 0, margin in 1..10 (1: none), the lambdas not below 0. It takes no extra: m multiplies the angle, so an
    offset would be no margin of so many radians.
    """

    takes_extra = False

    def __init__(
        self,
        scale: float = 64.0,
        margin: float = 4.0,
        lambda_base: float | None = None,
        lambda_gamma: float = 0.12,
        lambda_min: float | None = None,
    ) -> None:
        super().__init__()
        annealed = margin >= STEEP
        self.lambda_base = (1000.0 if annealed else 0.0) if lambda_base is None else lambda_base
        self.lambda_min = (5.0 if annealed else 0.0) if lambda_min is None else lambda_min
        check_range("scale", scale, above=0.0)
        check_range("margin of sphereface (multiplies the angle)", margin, 1.0, 10.0)
        check_range("lambda_base", self.lambda_base, 0.0)
        check_range("lambda_gamma", lambda_gamma, 0.0)
        check_range("lambda_min", self.lambda_min, 0.0)
        self.scale = scale
        self.margin = margin
        self.lambda_gamma = lambda_gamma
        self.register_buffer("t", paddle.zeros([1], dtype="int64"))

    def moved(self, own: Tensor, norms: Tensor, extra: Tensor | None) -> Tensor:
        if self.training:
            with paddle.no_grad():
                paddle.assign(self.t + 1, self.t)
        share = self.annealing()
        return (share * own + multiplied(own, self.margin)) / (1.0 + share)

    def annealing(self) -> Tensor:
        """lambda (1,), float32: how many times the plain cosine weighs what psi does."""
        return paddle.clip(self.lambda_base / (1.0 + self.lambda_gamma * self.t.astype("float32")), min=self.lambda_min)


def multiplied(cosine: Tensor, margin: float) -> Tensor:
    """cosine (B,) of theta -> psi(theta) (B,), falling from 1 at theta = 0."""
    theta = paddle.atan2(sine_of(cosine), cosine)
    turn = paddle.floor(theta.detach() * (margin / math.pi))
    sign = 1.0 - 2.0 * paddle.remainder(turn, paddle.full_like(turn, 2.0))
    return sign * paddle.cos(margin * theta) - 2.0 * turn
