"""Claim: on the same network, pictures, batches, steps and rates ours is at or above pytorch-metric-learning (PML).

python benchmarks/pml_twin.py --data <data> --out bench_out [--only orl] [--losses eml] [--seeds 0,1,2]

Trains the torch twin of every run of recipes.py with PML's losses; one JSON a run in <out>/pml/<data set>/. It takes
our loader, samplers, augmentation, schedule and metrics (none of them imports Paddle) and starts from our initial
weights, checked to 1e-4 on the embeddings. Stage two starts from the twin's own stage one. Best weights by validation.
PML is set to the same formula where it has it; where it has not, its nearest is taken, and marked so.
"""

import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from plan import LOSSES, MACHINE, PAIR, RECIPES, chosen, data_flags, loss_flags, result_file, sweep_options, write
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import Tensor, nn
from torch_resnet import Twin

from metric_learning.config import ElemOptions, PairOptions, TrainOptions, parse, shape_of, steps_of
from metric_learning.data.augmentation import Augmentation
from metric_learning.data.loader import BadPictures, test_batches, train_batches
from metric_learning.data.samplers import ClassSampler, Sampler, ShuffleSampler, TripletSampler
from metric_learning.data.sources import PictureSet
from metric_learning.data.splits import Splits, load_splits
from metric_learning.data.transforms import PictureSpec, TrainTransform
from metric_learning.metrics import retrieval_metrics
from metric_learning.schedule import schedule

CENTERED = {"arcmargin": losses.ArcFaceLoss, "amsoftmax": losses.CosFaceLoss, "sphereface": losses.SphereFaceLoss}
LossOf = Callable[[Tensor, Tensor], Tensor]
NEAREST = {
    "quadruplet": "nearest: TripletMarginLoss on BatchHardMiner",
    "eml": "nearest: MultiSimilarityLoss",
}
SAME = {
    "softmax": "torch linear layer and cross-entropy (PML has none without a norm)",
    "arcmargin": "ArcFaceLoss",
    "amsoftmax": "CosFaceLoss",
    "sphereface": "SphereFaceLoss on normalised embeddings",
    "triplet": "TripletMarginLoss",
    "npairs": "NPairsLoss",
}


def main() -> None:
    options = sweep_options(__doc__)
    torch.set_num_threads(1)
    for seed in map(int, options.seeds.split(",")):
        for name in chosen(options.only, tuple(RECIPES)):
            for loss in chosen(options.losses, LOSSES):
                path = result_file(options.out, "pml", name, loss, seed)
                if not path.exists():
                    run(options.data, Path(options.out).resolve(), name, loss, seed, path)


def run(data: str, out: Path, name: str, loss: str, seed: int, path: Path) -> None:
    """Train and measure one twin, and write its JSON."""
    kind = PairOptions if loss in PAIR else ElemOptions
    config = parse(kind, [*data_flags(name, data), *loss_flags(name, loss, seed), *MACHINE])
    start, cpu = time.perf_counter(), cpu_seconds()
    splits = load_splits(
        config.data_dir, test_classes=config.test_classes, val_classes=config.val_classes, seed=config.split_seed
    )
    net = Twin(shape_of(config.image_shape)[0], config.embedding_size, config.embedding_norm)
    first = start_from(net, data, out, name, seed)
    weights = out / "runs" / "pml" / f"{name}-arcmargin-{seed}.pt"
    if loss in PAIR:
        net.load_state_dict(torch.load(weights, weights_only=True))
    loss_of, trained = made_loss(config, first["arrays"], len(splits.train.classes))
    best, val = fit(config, splits, net, loss_of, trained)
    net.load_state_dict(best)
    if loss == "arcmargin":
        weights.parent.mkdir(parents=True, exist_ok=True)
        torch.save(best, weights)
    found = measure(config, net, splits.test)
    spent = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu}
    about = {"loss": NEAREST.get(loss) or SAME[loss], "same_at_start": first["difference"], "torch": torch.__version__}
    write(path, {"retrieval": found, "val": val, "about": about, **spent})
    step, recall, map_at_r = max(val, key=lambda line: line[1:])
    print(
        f"{name} {loss} seed {seed}: step {step}: val recall@1 {100 * recall:.2f} %, val map@r {100 * map_at_r:.2f} % "
        f"{spent['seconds']:.0f} s",
        flush=True,
    )


def start_from(net: Twin, data: str, out: Path, name: str, seed: int) -> dict[str, Any]:
    """Copy our initial weights into the twin; its embeddings must equal Paddle's to 1e-4."""
    file = out / "runs" / "start" / f"{name}-{seed}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("initial_weights.py")
        given = [f"--data={data}", f"--name={name}", f"--seed={seed}", f"--output={file}"]
        subprocess.run([sys.executable, str(script), *given], check=True)
    arrays = dict(np.load(file))
    net.copy_from({key.removeprefix("embedder."): arrays[key] for key in arrays if key.startswith("embedder.")})
    net.eval()
    with torch.no_grad():
        apart = np.abs(net(torch.from_numpy(arrays["images"])).numpy() - arrays["embeddings"]).max()
    if apart > 1e-4:
        raise SystemExit(f"The twin is not the same network: embeddings of {name} differ by {apart}.")
    return {"arrays": arrays, "difference": float(apart)}


def made_loss(config: TrainOptions, arrays: dict[str, np.ndarray], classes: int) -> tuple[LossOf, list[nn.Parameter]]:
    """The loss of a row as a function, and what is trained in it."""
    squared = distances.LpDistance(normalize_embeddings=True, p=2, power=2)
    if isinstance(config, ElemOptions):
        weight = torch.from_numpy(arrays[f"{config.loss_name}.centers.weight"])
        if config.loss_name == "softmax":
            linear = nn.Linear(weight.shape[1], classes)
            linear.load_state_dict({"weight": weight, "bias": torch.from_numpy(arrays["softmax.centers.bias"])})
            return lambda x, y: nn.functional.cross_entropy(linear(x), y), list(linear.parameters())
        told = config.margin_settings()
        margin = math.degrees(told["margin"]) if config.loss_name == "arcmargin" else told["margin"]
        made = CENTERED[config.loss_name](classes, weight.shape[1], margin=margin, scale=told["scale"])
        made.W.data = weight.T.clone()
        if config.loss_name == "sphereface":  # PML's multiplies by the embedding's length as well, as the paper does
            return lambda x, y: made(nn.functional.normalize(x), y), list(made.parameters())
        return made, list(made.parameters())
    assert isinstance(config, PairOptions)
    if config.loss_name == "triplet":
        given = losses.TripletMarginLoss(config.margin, distance=squared, reducer=reducers.MeanReducer())
        rows = torch.arange(config.train_batch_size).reshape(-1, 3)
        return lambda x, y: given(x, y, tuple(rows.T)), []
    if config.loss_name == "quadruplet":
        hard = losses.TripletMarginLoss(config.margin, distance=squared, reducer=reducers.MeanReducer())
        miner = miners.BatchHardMiner(distance=squared)
        return lambda x, y: hard(x, y, miner(x, y)), []
    if config.loss_name == "npairs":
        plain = distances.DotProductSimilarity(normalize_embeddings=False)
        length = regularizers.LpRegularizer(p=2, power=2)
        weight = 0.5 * config.npairs_reg_lambda
        return losses.NPairsLoss(distance=plain, embedding_regularizer=length, embedding_reg_weight=weight), []
    return losses.MultiSimilarityLoss(), []


def sampler_of(config: TrainOptions, train: PictureSet) -> Sampler:
    """As the stages choose it."""
    if isinstance(config, ElemOptions):
        return ShuffleSampler(len(train), config.train_batch_size, config.seed)
    assert isinstance(config, PairOptions)
    if config.rows_given:
        return TripletSampler(train.labels, config.train_batch_size, config.seed)
    return ClassSampler(train.labels, config.train_batch_size, config.samples_each_class, config.seed)


def fit(
    config: TrainOptions, splits: Splits, net: Twin, loss_of: LossOf, trained: list[nn.Parameter]
) -> tuple[dict[str, Tensor], list[Any]]:
    """Weights that did best on the validation classes, and what was found there, step by step."""
    picture = spec_of(config)
    parameters = [*net.parameters(), *trained]
    optimizer = torch.optim.SGD(parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    rate = schedule(
        config.lr_strategy, config.lr, config.total_iter_num, steps_of(config.lr_steps), config.warmup_steps
    )
    best: tuple[list[float], dict[str, Tensor]] | None = None
    said = []

    def judge(step: int) -> None:
        nonlocal best
        found = measure(config, net, splits.val)
        score = [found["recall@1"], found["map@r"]]
        said.append([step, *score])
        if best is None or score > best[0]:
            best = score, {key: value.clone() for key, value in net.state_dict().items()}

    judge(0)
    batches = train_batches(
        splits.train,
        sampler_of(config, splits.train),
        TrainTransform(
            picture,
            config.min_crop_area,
            config.flip,
            config.color_jitter,
            config.max_crop_aspect,
            Augmentation(**config.augmentation()),
        ),
        picture,
        seed=config.seed,
        start_step=0,
        stop_step=config.total_iter_num,
        workers=config.num_workers,
        bad=BadPictures(len(splits.train)),
    )
    for batch in batches:
        net.train()
        for group in optimizer.param_groups:
            group["lr"] = rate(batch.step)
        optimizer.zero_grad()
        loss_of(net(torch.from_numpy(batch.images)), torch.from_numpy(batch.labels)).backward()
        optimizer.step()
        if (batch.step + 1) % config.test_iter_step == 0 or batch.step + 1 == config.total_iter_num:
            judge(batch.step + 1)
    assert best is not None
    return best[1], said


def measure(config: TrainOptions, net: Twin, pictures: PictureSet) -> dict[str, Any]:
    """Recall@1, MAP@R and the like by our metrics."""
    net.eval()
    bad = BadPictures(len(pictures))
    batches = test_batches(pictures.paths, spec_of(config), config.test_batch_size, config.num_workers, bad)
    with torch.no_grad():
        made = [(kept, net(torch.from_numpy(images)).numpy()) for kept, images in batches]
    rows = np.concatenate([kept for kept, _ in made])
    return retrieval_metrics(np.concatenate([embeddings for _, embeddings in made]), pictures.labels[rows])


def spec_of(config: TrainOptions) -> PictureSpec:
    return PictureSpec(shape=shape_of(config.image_shape), test_crop=config.test_crop)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
