"""A margin that is larger for some groups of classes than for others, fixed or moved by what validation says."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import paddle
from paddle import Tensor

from metric_learning.checks import UserError, check_choice, check_range
from metric_learning.losses.base import Loss, check_labels, labels_on_host
from metric_learning.losses.element import ElementLoss

Numbers = npt.NDArray[np.float64]
LARGEST_OFFSET = 1.0  # radians, or what is taken off a cosine


class GroupMarginLoss(Loss):
    """embeddings (B, D), labels (B,) int64 in 0..C-1 -> `element`'s loss with an offset of the margin for each sample.

    The offset of a sample is that of its class's group: groups are the G names, group_of_class (C,) the place of each
    class's in them. offsets: name -> what is added to the margin, in its unit (radians or a cosine), 0 where not named;
    they are the buffer `offsets` (G,) float32, which is saved with the loss and which no gradient reaches.
    With a rate above 0 they are adapted: `adapt` moves them, by at most to +-largest.

    That margins should differ by race, the larger where fewer people were trained on, is Wang and Deng's idea (arXiv
    1911.10692), who learn them by reinforcement; the rule here is a plain one of our own, see `moved`.
    Raises UserError for a margin that takes no offset, a group that is not there, an offset beyond +-1.
    """

    def __init__(
        self,
        element: ElementLoss,
        groups: Sequence[str],
        group_of_class: npt.NDArray[np.int64],
        offsets: Mapping[str, float] | None = None,
        rate: float = 0.0,
        largest: float = 0.1,
    ) -> None:
        super().__init__()
        if not element.margin.takes_extra:
            able = "arcmargin, amsoftmax, magface, curricularface or adaface"
            kind = type(element.margin).__name__
            raise UserError(f"--group_margins: {kind} has no margin that can differ between groups. Choose {able}.")
        for name, offset in (offsets or {}).items():
            check_choice("A group of --group_margins", name, groups)
            check_range(f"--group_margins of {name}", offset, -LARGEST_OFFSET, LARGEST_OFFSET)
        self.element = element
        self.groups = list(groups)
        self.rate, self.largest = rate, largest
        self._group_of_class = group_of_class
        first = np.array([(offsets or {}).get(name, 0.0) for name in groups], np.float32)
        self.register_buffer("offsets", paddle.to_tensor(first))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.each(embeddings, labels).mean()

    def each(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of every sample (B,), of which `forward` is the mean."""
        names = labels_on_host(embeddings, labels)
        check_labels(names, len(self._group_of_class))
        extra = paddle.gather(self.offsets, paddle.to_tensor(self._group_of_class[names]))
        return self.element.each(embeddings, labels, extra)

    @property
    def figures(self) -> dict[str, float]:
        return self.element.figures

    def by_group(self) -> dict[str, float]:
        """The offsets as they are now."""
        return dict(zip(self.groups, self.offsets.numpy().tolist(), strict=True))

    def adapt(self, frr: Mapping[str, float]) -> None:
        """Move the offsets by the FRR of the groups; see `moved`."""
        now = self.offsets.numpy()
        new = moved(now.astype(np.float64), [frr.get(name) for name in self.groups], self.rate, self.largest)
        self.offsets.set_value(paddle.to_tensor(new.astype(np.float32)))


def moved(offsets: Numbers, frr: Sequence[float | None], rate: float, largest: float) -> Numbers:
    """offsets (G,) and each group's FRR in 0..1, None where it is not known -> the new offsets (G,).

    o_g <- clip(o_g + rate (FRR_g - mean FRR), -largest, largest), the mean over the groups whose FRR is known: the ones
    that are rejected more than that get a larger margin. A group without an FRR keeps its offset; fewer than two with
    one, and nothing moves.
    """
    known = [place for place, value in enumerate(frr) if value is not None]
    if len(known) < 2:
        return offsets.copy()
    rates = np.array([frr[place] for place in known], np.float64)
    new = offsets.copy()
    new[known] = np.clip(new[known] + rate * (rates - rates.mean()), -largest, largest)
    return new
