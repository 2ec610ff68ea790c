"""Cross-batch memory: a pair loss compares the batch with embeddings of the batches before it as well."""

import numpy as np
import paddle
from paddle import Tensor

from metric_learning.checks import UserError, check_range
from metric_learning.losses.base import Labels, Loss, labels_on_host
from metric_learning.losses.pairs import PairLoss


class MemoryLoss(Loss):
    """A pair loss whose references are the batch and a queue of the last `size` embeddings before it.

    Wang et al., arXiv 1912.06798. The first `start` batches neither enter the queue nor see it: embeddings move too
    fast at first for old ones to be worth anything. From then on each batch is compared and then enters, in training
    mode only, and the oldest leave; of a batch larger than the queue its end enters. The queue gets no gradient. The
    paper compares the batch with a queue that holds a copy of the batch itself, and its code adds the loss within the
    batch; here it is one loss over both, in which a pair within the batch has its gradient on both sides.

    dim is the size D of the embeddings; size >= 1, start >= 0. Queue, labels and counts are buffers, so they are part
    of a checkpoint. A loss over ready-made rows (mining `given`) compares nothing else, and is refused.

    figures: those of the loss, over the batch's pairs with both, and memory (how many past embeddings it saw).
    """

    def __init__(self, loss: PairLoss, dim: int, size: int, start: int = 1000) -> None:
        super().__init__()
        check_range("memory_size", size, 1)
        check_range("memory_start", start, 0)
        if not loss.by_label:
            raise UserError("A memory needs pairs by label, not ready-made rows: choose a mining other than 'given'.")
        self.loss = loss
        self.size = size
        self.start = start
        self.register_buffer("queue", paddle.zeros([size, dim]))
        self.register_buffer("queue_labels", paddle.zeros([size], "int64"))
        self.register_buffer("batches", paddle.zeros([1], "int64"))
        self.register_buffer("entered", paddle.zeros([1], "int64"))

    @property
    def figures(self) -> dict[str, float]:
        return self.loss.figures | super().figures

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        names = labels_on_host(embeddings, labels)
        if embeddings.shape[1] != self.queue.shape[1]:
            raise UserError(f"This memory is for embeddings of size {self.queue.shape[1]}; got {embeddings.shape[1]}.")
        filled = min(int(self.entered.item()), self.size)
        with paddle.amp.auto_cast(enable=False):
            x = embeddings.astype("float32")
            known: Labels = self.queue_labels.numpy()[:filled]
            references = paddle.concat([x, self.queue[:filled]]) if filled else x
            value = self.loss.compare(references, np.concatenate([names, known]), len(names))
            if self.training:
                self._enter(x.detach(), names)
        self._measured = {"memory": paddle.to_tensor(float(filled))}
        return value

    def _enter(self, x: Tensor, names: Labels) -> None:
        """Count the batch (B, D), and put it in the place of the oldest once the warm-up is over."""
        if int(self.batches.item()) >= self.start:
            first = max(0, len(names) - self.size)
            entered = int(self.entered.item())
            places = (entered + np.arange(len(names) - first)) % self.size
            known = self.queue_labels.numpy()
            known[places] = names[first:]
            self.queue_labels.set_value(paddle.to_tensor(known))
            self.queue.set_value(paddle.scatter(self.queue, paddle.to_tensor(places), x[first:]))
            self.entered.set_value(paddle.to_tensor([entered + len(places)]))
        self.batches.set_value(self.batches + 1)
