"""What several processes must find as one does; run under the launcher it writes what its world found into a file.

Each case is a function without arguments that gives arrays by name, whole ones: of a batch, a loss, all class centres.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "losses"))
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from metric_learning import runtime

    runtime.prepare(threads=1)

import paddle

if __name__ == "__main__":
    paddle.set_device("cpu")

from margin_twins import CASES as MARGINS
from margin_twins import built
from paddle import nn
from small_runs import new_embedder

from metric_learning import dist
from metric_learning.average import Average
from metric_learning.backbones.iresnet import FixedScaleNorm
from metric_learning.batch_norm import mean_statistics, share_statistics
from metric_learning.checkpoint import State
from metric_learning.data.loader import Batch
from metric_learning.losses import PAIR_LOSSES, pair_loss, pool_loss
from metric_learning.losses.centers import sharded_names
from metric_learning.losses.classifier import classifier_of
from metric_learning.losses.memory import MemoryLoss
from metric_learning.occlusion import OccludedForward, Occlusion
from metric_learning.optimizer import Optimizer
from metric_learning.pool_step import PoolStep, gallery_of
from metric_learning.runs import Run
from metric_learning.step import Step

B, C, D = 12, 7, 5
SAMPLED = [
    (name, {**settings, "centers": "partial", "partial_rate": 0.3}) for name, settings in MARGINS if name != "bce"
]
SAMPLED += [(name, {"centers": "partial", "partial_rate": 0.0}) for name in ("arcmargin", "softmax")]
ALL_TAKE_PART = [("arcmargin", {"centers": "partial", "partial_rate": 1.0}), ("softmax", {"focal_gamma": 2.0})]
WEIGHTS = (0.5, 3.0, 1.0, 1.0, 2.0, 1.0, 0.25)
SMOOTHED = [(name, {"scale": 8.0, "label_smoothing": 0.2}) for name in ("softmax", "curricularface")]
SMOOTHED += [("arcmargin", {"scale": 8.0, "label_smoothing": 0.2, "focal_gamma": 2.0, "class_weights": WEIGHTS})]
SMOOTHED += [("bce", {"label_smoothing": 0.1, "class_weights": WEIGHTS}), ("magface", {"class_weights": WEIGHTS})]
ELEMENT = [*MARGINS, *SAMPLED, *ALL_TAKE_PART, ("magface", {"dropout": 0.4}), *SMOOTHED]
LABELS = [4, 1, 4, 0, 1, 4, 2, 2, 1, 6, 2, 0]  # unequal counts, a class alone, two that are not there
TRIPLES = [0, 0, 1, 2, 2, 0, 1, 1, 2, 4, 4, 0]
PAIRS = [(name, {}) for name in PAIR_LOSSES]
PAIRS += [("triplet", {"mining": mining}) for mining in ("batch_hard", "semi_hard", "batch_all")]
PAIRS += [("triplet", {"mining": "batch_all", "soft_margin": True})]
PAIRS += [(name, {"memory": 20}) for name in ("eml", "multi_similarity", "npairs")]


def key(name: str, settings: dict) -> str:
    return " ".join([name, *(f"{k}={v}" for k, v in settings.items())])


def part(values: np.ndarray) -> np.ndarray:
    """This process's rows of a batch."""
    return values[slice(*dist.shard(len(values)))]


def whole(values) -> np.ndarray:
    """Rows of all processes, put together."""
    return np.concatenate(dist.all_gather_object(np.asarray(values)))


class Smooth(nn.Layer):
    """A small network with both kinds of batch normalisation. It has no kink, at which rounding would become a jump,
    and no bias before a normalisation, whose gradient would be rounding alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2D(3, 6, 3, 2, bias_attr=False), nn.BatchNorm2D(6)
        self.last, self.normed = nn.Linear(6, D, bias_attr=False), FixedScaleNorm(D)

    def forward(self, images):
        maps = paddle.tanh(self.norm(self.first(images)))
        return self.normed(self.last(maps.mean(axis=[2, 3]))) + 0.1


def network(shared: bool = True) -> nn.Layer:
    paddle.seed(3)
    made = Smooth()
    return share_statistics(made) if shared else made


def batch(step: int, labels=LABELS) -> Batch:
    """This process's part of a batch."""
    rng = np.random.default_rng(step)
    images = (rng.normal(size=(B, 3, 10, 10)) + rng.normal(size=(B, 1, 1, 1))).astype(np.float32)
    names = [str(row) for row in range(B)]
    return Batch(step, images, np.array(labels), np.arange(B), names, [None] * B).part(slice(*dist.shard(B)))


def loss_of(name: str, settings: dict):
    if name in PAIR_LOSSES:
        settings = dict(settings)
        memory = settings.pop("memory", 0)
        made = pair_loss(name, **settings)
        return MemoryLoss(made, D, memory, start=2) if memory else made
    return built(name, classes=C, dim=D, trained=True, **settings)


def labels_of(name: str, settings: dict) -> list[int]:
    return TRIPLES if name == "triplet" and settings.get("mining", "given") == "given" else LABELS


def one_batch(name: str, settings: dict) -> dict[str, np.ndarray]:
    """Value and gradients of a loss at embeddings that all processes have."""
    loss = loss_of(name, settings)
    rows = np.random.default_rng(1).normal(size=(B, D)).astype(np.float32)
    x = paddle.to_tensor(part(rows), stop_gradient=False)
    y = dist.all_gather(paddle.to_tensor(part(np.array(labels_of(name, settings)))))
    paddle.seed(9)
    value = loss(dist.gather_with_gradient(x), y)
    value.backward()
    found = {"value": np.array(value.item()), "gradient": whole(x.grad.numpy())}
    found |= {f"figure {figure}": np.array(number) for figure, number in loss.figures.items()}
    return found | {f"slope {n}": whole(p.grad.numpy()) for n, p in loss.named_parameters() if not p.stop_gradient}


def whole_state(loss: nn.Layer) -> dict[str, np.ndarray]:
    """Weights and buffers of a loss, what is sharded put together."""
    sharded = sharded_names(loss)
    return {n: whole(v.numpy()) if n in sharded else v.numpy() for n, v in loss.state_dict().items()}


def trained(name: str, settings: dict, kind: str = "momentum", pieces: int = 1, clip: float = 0.3, steps: int = 10):
    """Everything after some steps."""
    loss, net = loss_of(name, settings), network()
    optimizer = Optimizer(kind, net, loss, momentum=0.9, weight_decay=0.01, clip_norm=clip)
    optimizer.set_lr(0.02)
    learn = Step(net, lambda b: net(paddle.to_tensor(b.images)), loss, seed=4, pieces=pieces)
    for number in range(steps):
        learn(batch(number, labels_of(name, settings)))
        optimizer.step()
    found = {f"net {n}": value.numpy() for n, value in net.state_dict().items()}
    return found | whole_state(loss)


def state(name: str, settings: dict) -> State:
    paddle.seed(2)
    net = network()
    net.spec = type("Spec", (), {"to_dict": lambda self: {}})()
    loss = loss_of(name, settings)
    average = Average(nn.LayerDict({"embedder": net, "centers": loss.centers}), 0.8) if name == "arcmargin" else None
    return State(net, loss, Optimizer("momentum", net, loss, momentum=0.9, weight_decay=0.01), average=average)


def go(made: State, steps: int) -> State:
    learn = Step(made.embedder, lambda b: made.embedder(paddle.to_tensor(b.images)), made.loss, seed=4)
    made.optimizer.set_lr(0.02)
    for _ in range(steps):
        learn(batch(made.step))
        made.update()
    return made


def everything(made: State) -> dict[str, np.ndarray]:
    arrays, divided = made._arrays()
    return {n: whole(value) if n in divided else value for n, value in arrays.items()}


RESUMED = [("arcmargin", {}), ("softmax", {"centers": "partial", "partial_rate": 0.4})]


def saved(folder: Path) -> None:
    """Four steps, saved; what all eight would give is computed by another world."""
    for number, (name, settings) in enumerate(RESUMED):
        go(state(name, settings), 4).save(Run(folder / str(number)), keep=0)
    pool_saved(folder)


def resumed(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for number, (name, settings) in enumerate(RESUMED):
        made = state(name, settings)
        made.restore(Run(folder / str(number)).latest)
        assert made.step == 4
        found |= {f"{number} {n}": value for n, value in everything(go(made, 4)).items()}
    return found | pool_resumed(folder)


def straight() -> dict[str, np.ndarray]:
    cases = [everything(go(state(name, settings), 8)) for name, settings in RESUMED]
    found = {f"{number} {n}": value for number, found in enumerate(cases) for n, value in found.items()}
    return found | {f"pool {n}": value for n, value in everything(pool_go(pool_state(*POOL), 8)).items()}


def talk() -> dict[str, np.ndarray]:
    """The small things; each array is the same for every number of processes."""
    net = network(shared=False)
    net.norm._mean.set_value(paddle.full([6], float(dist.rank() * 2 - dist.size() + 1)))
    mean_statistics(net)
    averaged = state(*RESUMED[0])  # statistics of the average too are each process's own without --sync_bn
    averaged.average.values["embedder.norm._mean"] = paddle.full([6], float(dist.rank() * 2 - dist.size() + 4))
    with averaged.judged():
        judged = averaged.embedder.norm._mean.numpy()
    shares = dist.all_gather_object(dist.shard(11))
    return {
        "any": np.array([dist.any_of(dist.rank() == 0), dist.any_of(False)]),
        "first": np.array([dist.broadcast_object(dist.rank()), int(dist.is_first()) if dist.is_first() else 1]),
        "shares": np.concatenate([np.arange(*share) for share in shares]),
        "mean": net.norm._mean.numpy(),
        "judged": whole([judged])[[0, -1]],
        "averaged": whole([averaged.average.arrays()["embedder.norm._mean"]])[[0, -1]],
        "largest": dist.all_max(paddle.to_tensor([float(-dist.rank()), 3.0])).numpy(),
    }


def classes() -> dict[str, np.ndarray]:
    """The whole classifier, as every process has it."""
    found = {}
    for name, settings in (("arcmargin", {}), ("bce", {}), ("softmax", {"centers": "partial"})):
        made = classifier_of(loss_of(name, settings))
        found |= {f"{key(name, settings)} {n}": value for n, value in made.to_arrays()[0].items()}
    return found


def covered() -> dict[str, np.ndarray]:
    """Masks that the loss chooses, of a network whose last map is the pictures themselves."""
    paddle.seed(1)
    loss = loss_of("curricularface", {})
    net = new_embedder(size=D)
    forward = OccludedForward(net, loss, Occlusion(("left", "right", "top", "random_half"), 0.7, True), 5, False)
    found = [
        forward.masks(paddle.to_tensor(batch(step).images).tile([1, 6, 1, 1])[:, :16], batch(step)) for step in range(3)
    ]
    return {str(step): whole(masks) for step, masks in enumerate(found)}


def all_cases() -> dict[str, np.ndarray]:
    found = {f"talk/{n}": value for n, value in talk().items()}
    found |= {f"covered/{n}": value for n, value in covered().items()}
    found |= {f"classes/{n}": value for n, value in classes().items()}
    for name, settings in [*ELEMENT, *PAIRS]:
        for what, case in (("one", one_batch), ("ten", trained)):
            made = case(name, settings)
            found |= {f"{what} {key(name, settings)}/{n}": value for n, value in made.items()}
    for kind in ("momentum", "adam"):
        for centers in ("all", "partial"):
            made = trained("arcmargin", {"centers": centers}, kind, steps=5)
            found |= {f"{kind} {centers}/{n}": value for n, value in made.items()}
    return found | pool_cases() | {f"straight/{n}": value for n, value in straight().items()}


# ---- a pool of class centres

PAIRED = 16  # pictures of a batch: each of four processes has two pairs
# Fewer slots than classes, so that some go and some are outside; more than all of them; with four processes, one a
# slot each and fewer than the three largest cosines that count.
POOL = ("arcmargin", {"scale": 8.0, "margin": 0.5, "slots": 9})
POOLS = [
    POOL,
    ("arcmargin", {"slots": 30, "focal_gamma": 2.0}),
    ("amsoftmax", {"scale": 8.0, "slots": 4}),
    ("magface", {"scale": 8.0, "l_a": 1.0, "u_a": 4.0, "slots": 9, "dropout": 0.4}),
    ("curricularface", {"scale": 8.0, "margin": 1.2, "ema_rate": 0.3, "slots": 9}),
    ("adaface", {"scale": 8.0, "margin": 0.7, "h": 0.8, "ema_rate": 0.2, "slots": 9}),
]


def pool_of(name: str, settings: dict):
    paddle.seed(0)
    return pool_loss(name, 20, D, **settings)


def paired(step: int) -> Batch:
    """This process's part of a batch of pairs: four people in either half, three of them in both."""
    rng = np.random.default_rng(step)
    same = rng.permutation(20)[:3]
    either = [np.append(same, rng.integers(20))[[*range(3), *rng.integers(4, size=5)]] for _ in range(2)]
    labels = np.stack(either, axis=1)
    images = rng.normal(size=(PAIRED, 3, 10, 10)) + rng.normal(size=(PAIRED, 1, 1, 1))
    rows = part(np.arange(PAIRED))
    return Batch(
        step,
        images.astype(np.float32)[rows],
        labels.ravel()[rows],
        rows,
        [str(row) for row in rows],
        [None] * len(rows),
    )


def pool_one(name: str, settings: dict) -> dict[str, np.ndarray]:
    """Value and gradients of two passes in a row, the first one forgotten."""
    loss, rng, found = pool_of(name, settings), np.random.default_rng(1), {}
    for number, keep in enumerate((True, False, True)):
        x = paddle.to_tensor(part(rng.normal(size=(8, D)).astype(np.float32)), stop_gradient=False)
        features = paddle.to_tensor(rng.normal(size=(8, D)).astype(np.float32))
        names = rng.permutation(20)[:4][rng.integers(4, size=8)]
        paddle.seed(9)
        labels = paddle.to_tensor(np.where(np.arange(8) % 2, names, rng.integers(20, size=8)))
        value = loss(dist.gather_with_gradient(x), labels, features, paddle.to_tensor(names), keep)
        value.backward()
        found |= {f"value {number}": np.array(value.item()), f"gradient {number}": whole(x.grad.numpy())}
        found |= {f"figure {number} {figure}": np.array(value) for figure, value in loss.figures.items()}
    return found | whole_state(loss)


def pool_state(name: str, settings: dict) -> State:
    paddle.seed(2)
    net = network()
    net.spec = type("Spec", (), {"to_dict": lambda self: {}})()
    loss = pool_of(name, settings)
    optimizer = Optimizer("momentum", net, loss, momentum=0.9, weight_decay=0.01, clip_norm=0.3)
    return State(net, loss, optimizer, further={"gallery": gallery_of(net)})


def pool_go(made: State, steps: int) -> State:
    net, gallery = made.embedder, made.further["gallery"]
    forwards = [lambda b, n=n: n(paddle.to_tensor(b.images)) for n in (net, gallery)]
    learn = PoolStep(net, gallery, *forwards, made.loss, seed=4, momentum=0.7)
    made.optimizer.set_lr(0.02)
    for _ in range(steps):
        learn(paired(made.step))
        made.update()
    return made


def pool_saved(folder: Path) -> None:
    pool_go(pool_state(*POOL), 4).save(Run(folder / "pool"), keep=0)


def pool_resumed(folder: Path) -> dict[str, np.ndarray]:
    made = pool_state(*POOL)
    made.restore(Run(folder / "pool").latest)
    return {f"pool {n}": value for n, value in everything(pool_go(made, 4)).items()}


def pool_cases() -> dict[str, np.ndarray]:
    found = {}
    for case in POOLS:
        found |= {f"one pool {key(*case)}/{n}": value for n, value in pool_one(*case).items()}
        made = everything(pool_go(pool_state(*case), 6))
        found |= {f"six pool {key(*case)}/{n}": value for n, value in made.items()}
    return found


if __name__ == "__main__":
    dist.start()
    job, folder = sys.argv[1], Path(sys.argv[2])
    if job == "save":
        saved(folder)
    else:
        arrays = all_cases() if job == "cases" else resumed(folder)
        if dist.is_first():
            np.savez(folder / f"{job}-{dist.size()}.npz", **arrays)
