"""train_elem and train_pair: they differ in options, sampler and loss; all the rest is one piece."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import paddle
from paddle import Tensor

from metric_learning import runtime
from metric_learning.checkpoint import Run, State, checkpoint_to_resume, new_run, newest_run, run_of, weights_file
from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, PairOptions, TrainOptions, options, resumed, steps_of
from metric_learning.data.loader import BadPictures, Batch, train_batches
from metric_learning.data.samplers import ClassSampler, QuadrupletSampler, Sampler, ShuffleSampler, TripletSampler
from metric_learning.data.sources import PictureSet
from metric_learning.data.splits import Splits
from metric_learning.data.transforms import TrainTransform
from metric_learning.embedder import Embedder, saved_spec
from metric_learning.engine import Predictor, training_forward
from metric_learning.evaluate import embed_set, retrieval, verification
from metric_learning.extract import Reader
from metric_learning.files import write_json
from metric_learning.log import RunLog
from metric_learning.losses import element_loss, pair_loss
from metric_learning.losses.base import Loss
from metric_learning.report import Report
from metric_learning.schedule import schedule
from metric_learning.stages import setup
from metric_learning.train import Plan, Scores, fit
from metric_learning.weights import imagenet_file, load_weights

FARS = (0.1, 0.01, 0.001)
AnyTrain = TypeVar("AnyTrain", bound=TrainOptions)


def train_elem(config: ElemOptions) -> None:
    """Stage one. Raises UserError for all that the user can mend; what a run produced stays on disk."""
    lines: list[str] = []
    run, start, config = _resume(config)
    weights: Path | None = None
    if run is None:
        config, weights = _start(config, None, lines)
    _train(config, run, start, weights, lines)


def train_pair(config: PairOptions) -> None:
    """Stage two: from the newest stage-one run's best weights, unless other weights (or `none`) are named."""
    lines: list[str] = []
    run, start, config = _resume(config)
    weights: Path | None = None
    if run is None:
        before = newest_run(config.model_save_dir, "elem") if config.pretrained_model is None else None
        if before is not None:
            lines.append(f"Starting from the newest stage-one run, {before.folder} (another: --pretrained_model).")
        elif config.pretrained_model is None:
            lines.append(f"No stage-one run in {config.model_save_dir!r}: starting from the backbone alone.")
        config, weights = _start(config, before, lines)
    _train(config, run, start, weights, lines)


# ---- where a run starts from


def _resume(config: AnyTrain) -> tuple[Run | None, Path | None, AnyTrain]:
    """(run, checkpoint, its options) where --checkpoint names one; (None, None, config) for a new run."""
    if config.checkpoint is None:
        return None, None, config
    run, start = checkpoint_to_resume(config.checkpoint)
    saved = run.config()
    if saved.get("command") != config.command:
        raise UserError(f"{run.folder} is a run of {saved.get('command')}.py; resume it with that script.")
    return run, start, resumed(config, saved)


def _start(config: AnyTrain, before: Run | None, lines: list[str]) -> tuple[AnyTrain, Path | None]:
    """Options with the defaults that demo data, the run before and the weights bring; and the weights' file."""
    weights = None
    if before is not None:
        weights = before.best if before.best.is_file() else before.latest
    elif config.pretrained_model not in (None, "none", "imagenet"):
        weights = weights_file(str(config.pretrained_model))
        before = run_of(weights)
    if before is not None:
        config = setup.with_data_of(config, before, lines.append)
    if config.data_dir is None:
        config = config.with_defaults(**config.demo)
        lines.append(
            "Demo recipe (model, sizes and steps for two cores): "
            + ", ".join(f"{k}={v}" for k, v in config.demo.items())
        )
    spec = saved_spec(weights) if weights else None
    if spec is not None:
        if "model" in config.typed and config.model != spec.model:
            raise UserError(
                f"{weights} holds a {spec.model}, not --model={config.model}. Leave --model out, or name other weights."
            )
        config = config.with_defaults(**setup.options_of(spec))
    if before is not None and setup.same_data(config, before):
        config = config.with_defaults(
            **{k: v for k, v in before.config().items() if k in ("min_crop_area", "flip", "color_jitter")}
        )
    config.validate()
    return config, weights


def _initial_weights(config: TrainOptions, embedder: Embedder, weights: Path | None) -> str:
    if config.pretrained_model == "imagenet":
        weights = imagenet_file(config.model)
    if weights is None:
        return f"Weights: random, seed {config.seed}."
    return load_weights(embedder, weights)


# ---- the parts


@dataclass(frozen=True)
class Parts:
    """What a stage trains with, beside the network."""

    loss: Loss
    sampler: Sampler
    notes: list[str]


def _parts(config: TrainOptions, train: PictureSet, size: int) -> Parts:
    if isinstance(config, ElemOptions):
        return _elem_parts(config, train, size)
    assert isinstance(config, PairOptions)
    return _pair_parts(config, train)


def _elem_parts(config: ElemOptions, train: PictureSet, size: int) -> Parts:
    notes = [f"--{name} has no effect with --loss_name={config.loss_name}." for name in config.unused()]
    counted = len(train.classes)
    if config.class_dim is not None and config.class_dim < counted:
        raise UserError(f"--class_dim={config.class_dim} is less than the {counted} classes to train on. Leave it out.")
    if config.class_dim is not None and config.class_dim != counted:
        notes.append(
            f"--class_dim={config.class_dim}, but there are {counted} classes to train on: the rest stay empty."
        )
    loss = element_loss(
        config.loss_name,
        config.class_dim or counted,
        size,
        scale=config.arc_scale,
        margin=config.arc_margin,
        easy_margin=config.arc_easy_margin,
        focal_gamma=config.focal_gamma,
    )
    return Parts(loss, ShuffleSampler(len(train), config.train_batch_size, config.seed), notes)


def _pair_parts(config: PairOptions, train: PictureSet) -> Parts:
    notes = [f"--{name} has no effect with --loss_name={config.loss_name}." for name in config.unused()]
    loss = pair_loss(
        config.loss_name,
        margin=config.margin,
        second_margin=config.margin2,
        mining=config.mining,
        soft_margin=config.soft_margin,
        npairs_reg_lambda=config.npairs_reg_lambda,
    )
    if config.rows_given:
        rows = TripletSampler if config.loss_name == "triplet" else QuadrupletSampler
        return Parts(loss, rows(train.labels, config.train_batch_size, config.seed), notes)
    sampler = ClassSampler(train.labels, config.train_batch_size, config.samples_each_class, config.seed)
    if sampler.left_out:
        notes.append(
            f"{sampler.left_out} classes have a single picture and take no part: they can't give a positive pair."
        )
    if sampler.small:
        notes.append(
            f"{sampler.small} classes have fewer than --samples_each_class={config.samples_each_class} pictures: "
            "theirs come more than once in a batch, each time augmented anew."
        )
    return Parts(loss, sampler, notes)


def _optimizer(config: TrainOptions, layers: list[paddle.nn.Layer]) -> paddle.optimizer.Optimizer:
    parameters = [p for layer in layers for p in layer.parameters() if not p.stop_gradient]
    shared = {
        "parameters": parameters,
        "weight_decay": paddle.regularizer.L2Decay(config.weight_decay) if config.weight_decay else None,
        "grad_clip": paddle.nn.ClipGradByGlobalNorm(config.clip_norm) if config.clip_norm else None,
    }
    if config.optimizer == "adam":
        return paddle.optimizer.Adam(config.lr, **shared)
    return paddle.optimizer.Momentum(config.lr, config.momentum, **shared)


# ---- the run


def _train(config: TrainOptions, run: Run | None, start: Path | None, weights: Path | None, lines: list[str]) -> None:
    runtime.select_device(config.use_gpu)
    for line in lines:
        print(line)
    if run is None:
        run = new_run(config.model_save_dir, config.command, getattr(config, "loss_name", ""), config.to_dict())
    with RunLog(run.folder) as log:
        log.say(f"Run: {run.folder} ({runtime.paddle_version()[0]})")
        for item in options(type(config)):
            if item.name in config.typed and item.metadata["retired"]:
                log.say(f"--{item.name} is accepted and has no effect: {item.metadata['retired']}.")
        splits = setup.load_data(config, log.say)
        setup.report_duplicates(splits, log.say)
        write_json(run.folder / "classes.json", {k: getattr(splits, k).classes for k in ("train", "val", "test")})
        bad = BadPictures(len(splits.train) + len(splits.val) + len(splits.test), config.max_bad_pictures)
        embedder = _fit(config, run, start, weights, splits, bad, log)
        _final(config, run, embedder, splits, bad, log)


def _fit(
    config: TrainOptions,
    run: Run,
    start: Path | None,
    weights: Path | None,
    splits: Splits,
    bad: BadPictures,
    log: RunLog,
) -> Embedder:
    """Build all parts, go on from the checkpoint if there is one, train to the end."""
    paddle.seed(config.seed)
    embedder = Embedder(setup.spec_of(config))
    parts = _parts(config, splits.train, embedder.size)
    for line in parts.notes:
        log.say(line)
    state = State(embedder, parts.loss, _optimizer(config, [embedder, parts.loss]))
    if start is not None:
        state.restore(start)
        log.say(f"Resumed at step {state.step} from {start}.")
    else:
        log.say(_initial_weights(config, embedder, weights))
    picture = embedder.spec.picture
    forward = training_forward(embedder, picture.shape[0], config.onednn)

    def step_loss(batch: Batch) -> Tensor:
        loss: Tensor = parts.loss(forward(paddle.to_tensor(batch.images)), paddle.to_tensor(batch.labels))
        return loss

    def evaluate() -> Scores:
        reader = Reader(picture, config.test_batch_size, config.num_workers, quiet=True)
        found = retrieval(embed_set(Predictor(embedder, picture.shape, config.precision), splits.val, reader, bad))
        return {f"val {name}": float(found[name] or 0.0) for name in ("recall@1", "map@r")}

    embedder.train()
    batches = train_batches(
        splits.train,
        parts.sampler,
        TrainTransform(picture, config.min_crop_area, config.flip, config.color_jitter),
        picture,
        seed=config.seed,
        start_step=state.step,
        stop_step=config.total_iter_num,
        workers=config.num_workers,
        bad=bad,
    )
    plan = Plan(
        config.total_iter_num,
        config.display_iter_step,
        config.test_iter_step,
        config.save_iter_step,
        config.keep,
        config.seed,
    )
    rate = schedule(
        config.lr_strategy, config.lr, config.total_iter_num, steps_of(config.lr_steps), config.warmup_steps
    )
    figures = lambda: parts.loss.figures  # noqa: E731
    fit(state, run, log, plan, batches, step_loss, figures, rate, evaluate if len(splits.val) else None)
    return embedder


def _final(config: TrainOptions, run: Run, embedder: Embedder, splits: Splits, bad: BadPictures, log: RunLog) -> None:
    """The best weights, measured once on the classes that took part in nothing."""
    load_weights(embedder, run.best)
    log.say(f"Best weights: {run.best}")
    if len(splits.test):
        picture = embedder.spec.picture
        predictor = Predictor(embedder, picture.shape, config.precision)
        reader = Reader(picture, config.test_batch_size, config.num_workers)
        found = embed_set(predictor, splits.test, reader, bad)
        about = setup.about(config, embedder, splits.test, "test", run.best, predictor.way) | {"seed": config.seed}
        report = Report(about, retrieval(found), verification(found, FARS) if found.groups is not None else None)
        report.write_json(run.results)
        log.say(f"\nTest classes, none of them seen in training:\n{report.text()}")
    for line in bad.lines():
        log.say(f"Left out, can't be read: {line}")
