"""Several processes that train as one: ranks of `python -m paddle.distributed.launch`, by Gloo on CPUs, NCCL on GPUs.

The rule behind it: a rank embeds its own part of the batch, `gather_with_gradient` puts the parts together, and every
rank finds the same loss over the whole batch. So the gradient of a gathered embedding is whole on every rank, each has
that of its own part back, and the gradients of the network's weights add up over the ranks (`all_reduce_gradients`).
What is sharded (class centres) goes through `sum_with_gradient` and `with_summed_gradient`, which keep that rule.

One process is a world of size 1: every function here then hands back what it was given.
"""

import os
import time
from collections.abc import Iterable
from typing import Any, TypeVar

import paddle
import paddle.distributed as collective
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from metric_learning.checks import UserError

Value = TypeVar("Value")
MEETING = "metric_learning/meeting"  # how often processes have come to a meeting, all together
_meetings = 0  # of this process
BUCKET = 2**24  # numbers that travel in one all_reduce


def launched() -> int:
    """How many processes the launcher has started; 1 without it."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM") or 1)


def start() -> None:
    """Join the other processes, once; the device must have been chosen. Does nothing without a launcher."""
    if launched() == 1 or collective.is_initialized():
        return
    if paddle.get_device() == "cpu":
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"  # the launcher means NCCL where it sees a GPU
    try:
        collective.init_parallel_env()
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"Can't join the other processes: {' '.join(str(error).split())[:200]}.") from error


def size() -> int:
    """Number of processes that have joined."""
    return int(collective.get_world_size()) if collective.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(collective.get_rank()) if collective.is_initialized() else int(os.environ.get("PADDLE_TRAINER_ID") or 0)


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def barrier() -> None:
    """Wait until all processes are here, however long that takes."""
    meet()
    if size() > 1:
        collective.barrier()


def meet() -> None:
    """Wait for the others before Gloo has to: it gives up after 30 seconds, and Paddle has no way to tell it otherwise.

    For places that processes reach at different times, as one reads, writes or evaluates more than another. They count
    themselves in the store that the launcher's processes found each other by.
    """
    global _meetings
    if size() == 1 or paddle.get_device() != "cpu":  # NCCL waits for half an hour
        return
    _meetings += 1
    store, pause = collective.collective._default_store, 1e-4
    try:
        store.add(MEETING, 1)
        while store.add(MEETING, 0) < _meetings * size():
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
    except RuntimeError as error:
        raise RuntimeError(f"Gloo's store does not answer: {error}") from error


def all_gather_object(value: Value) -> list[Value]:
    """The value of every process, in the order of the ranks."""
    if size() == 1:
        return [value]
    found: list[Value] = []
    meet()
    collective.all_gather_object(found, value)
    return found


def broadcast_object(value: Value) -> Value:
    """The first process's value, on all of them."""
    return all_gather_object(value)[0]


class Everyone:
    """All processes as the team that metrics divide their work over (metrics.team.Team)."""

    @property
    def rank(self) -> int:
        return rank()

    @property
    def size(self) -> int:
        return size()

    def gather(self, mine: Value) -> list[Value]:
        return all_gather_object(mine)


EVERYONE = Everyone()


def any_of(mark: bool) -> bool:
    """Whether any of the processes has this mark."""
    return mark if size() == 1 else all_max(paddle.to_tensor([int(mark)])).item() > 0


def shard(total: int) -> tuple[int, int]:
    """(start, stop) of this process's part of `total` things: contiguous, in the order of the ranks, even to one."""
    return total * rank() // size(), total * (rank() + 1) // size()


# ---- without a gradient


def all_sum(x: Tensor) -> Tensor:
    """The sum of x over the processes, outside the graph."""
    return _reduced(x, collective.ReduceOp.SUM)


def all_max(x: Tensor) -> Tensor:
    """The largest of x over the processes, entry by entry, outside the graph."""
    return _reduced(x, collective.ReduceOp.MAX)


def _reduced(x: Tensor, how: Any) -> Tensor:
    x = x.detach()
    if size() == 1:
        return x
    x = x.clone()
    collective.all_reduce(x, op=how)
    return x


def all_gather(x: Tensor) -> Tensor:
    """x (b, ...) of every process, of one shape -> (N b, ...), outside the graph."""
    if size() == 1:
        return x.detach()
    parts: list[Tensor] = []
    collective.all_gather(parts, x.detach().contiguous())
    return paddle.concat(parts)


# ---- with a gradient


class _AllGather(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        return all_gather(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope[rank() * ctx.rows : (rank() + 1) * ctx.rows]


class _AllSum(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_sum(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope


class _WithSummedGradient(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return all_sum(slope)


def gather_with_gradient(x: Tensor) -> Tensor:
    """x (b, ...) of every process, of one shape -> (N b, ...); each gets the gradient of its own part back."""
    return x if size() == 1 else _AllGather.apply(x)


def sum_with_gradient(x: Tensor) -> Tensor:
    """The sum of x over the processes, for a value that all of them go on with alike: the gradient comes back as is."""
    return x if size() == 1 else _AllSum.apply(x)


def with_summed_gradient(x: Tensor) -> Tensor:
    """x, alike on all processes, for work that is divided among them: the gradients of the parts are added up."""
    return x if size() == 1 else _WithSummedGradient.apply(x)


# ---- weights and gradients


def all_reduce_gradients(parameters: Iterable[Tensor]) -> None:
    """Put the sum over the processes in the place of each gradient; one that is missing counts as 0."""
    if size() == 1:
        return
    bucket: list[Tensor] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(item.size for item in bucket) >= BUCKET:
            _add_up(bucket)
            bucket = []
    if bucket:
        _add_up(bucket)


def _add_up(parameters: list[Tensor]) -> None:
    """All of them in one message: the latency of a network counts for each."""
    slopes = [paddle.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = paddle.concat([slope.astype("float32").reshape([-1]) for slope in slopes])
    collective.all_reduce(flat)
    for parameter, part in zip(parameters, paddle.split(flat, [int(p.size) for p in parameters]), strict=True):
        summed = part.reshape(parameter.shape).astype(parameter.dtype)
        if parameter.grad is None:
            parameter.grad = summed
        else:
            parameter.grad.set_value(summed)


def broadcast_weights(layer: nn.Layer) -> None:
    """The first process's weights and buffers on all processes."""
    meet()
    for value in layer.state_dict().values() if size() > 1 else ():
        collective.broadcast(value, 0)
