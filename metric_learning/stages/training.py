"""train_elem and train_pair: they differ in options, sampler and loss; all the rest is one piece."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import paddle

from metric_learning import dist, runtime
from metric_learning.average import Average
from metric_learning.batch_norm import share_statistics
from metric_learning.checkpoint import State
from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, PairOptions, TrainOptions, options, steps_of
from metric_learning.data.augmentation import Augmentation
from metric_learning.data.loader import BadPictures, Batch, train_batches
from metric_learning.data.splits import Splits
from metric_learning.data.transforms import TrainTransform
from metric_learning.embedder import Embedder
from metric_learning.files import clear_parts, write_json
from metric_learning.freezing import freeze, freeze_layers, learning
from metric_learning.lock import held
from metric_learning.log import NoLog, RunLog
from metric_learning.losses import PoolLoss
from metric_learning.pool_step import PoolStep, same_as
from metric_learning.recompute import recompute_blocks
from metric_learning.runs import Run, new_run, newest_run
from metric_learning.schedule import Schedule, schedule
from metric_learning.stages import folding, grouping, pooling, setup
from metric_learning.stages.judging import Judge, Stage, judge_of
from metric_learning.stages.parts import averaged, by_onednn, check_division, forward_of, in_bfloat16, optimizer, parts
from metric_learning.stages.starting import centers_at_means, initial_weights, resume, start, starting_run
from metric_learning.stages.teaching import named_teacher, next_generation, run_of_teacher, teacher_of
from metric_learning.step import Step
from metric_learning.train import Plan, fit
from metric_learning.watch import grid

AnyTrain = TypeVar("AnyTrain", bound=TrainOptions)


def train_elem(config: ElemOptions) -> None:
    """Stage one. Raises UserError for all that the user can mend; what a run produced stays on disk."""
    say = Lines()
    run, checkpoint, config = resume(config)
    if run is None:
        config = start(config, None, say)
    config, run = _train_all(config, run, checkpoint, say)
    while following := folding.next_fold(config, run):
        config, run = _train_all(*following, Lines())
    if config.fold_series is not None and dist.is_first():
        folding.summary(config.fold_series, Path(config.model_save_dir))


def train_pair(config: PairOptions) -> None:
    """Stage two: from the newest stage-one run's best weights, unless other weights (or `none`) are named."""
    say = Lines()
    run, checkpoint, config = resume(config)
    if run is None:
        before = newest_run(config.model_save_dir, "elem") if config.pretrained_model is None else None
        if before is not None:
            say(f"Starting from the newest stage-one run, {before.folder} (another: --pretrained_model).")
        elif config.pretrained_model is None:
            say(f"No stage-one run in {config.model_save_dir!r}: starting from the backbone alone.")
        config = start(config, before, say)
    _train_all(config, run, checkpoint, say)


class Lines(list[str]):
    """What is said before there is a run: printed at once, and kept for the run's log."""

    def __call__(self, text: str) -> None:
        if dist.is_first():
            print(text, flush=True)
        self.append(text)


def _train_all(config: AnyTrain, run: Run | None, checkpoint: Path | None, say: Lines) -> tuple[AnyTrain, Run]:
    """The run, then the generations of students behind it, each a run of its own; the last one and its options."""
    config, run = _train(named_teacher(config), run, checkpoint, say)
    while config.generation < config.generations:
        say = Lines()
        config, begun = next_generation(config, run, say)
        config, run = _train(config, begun, begun.latest if begun and begun.latest.is_file() else None, say)
    return config, run


def _train(config: AnyTrain, run: Run | None, checkpoint: Path | None, say: Lines) -> tuple[AnyTrain, Run]:
    """Build everything first, so that what can't work leaves no run behind; then train, then measure once.

    The options that come back, for folds and generations, have numbers of steps for --epochs; the run notes both.
    """
    setup.begin(config)
    runtime.keep_freed_memory()
    for item in options(type(config)):
        if item.name in config.typed and item.metadata["retired"]:
            say(f"--{item.name} is accepted and has no effect: {item.metadata['retired']}.")
    if dist.is_first():
        setup.check_writable(config.model_save_dir if run is None else run.folder, "--model_save_dir")
    splits = setup.load_data(config, say, setup.division_of(vars(config)))
    _check_validation(config, splits)
    if run is None:
        config = _sized(config, splits, say)
    stage = _build(config, splits, checkpoint, say)
    if run is None:
        run = _new_run(config)
    first = dist.is_first()
    with (
        held(run.folder) if first else nullcontext(),
        RunLog(run.folder, stage.state.step) if first else NoLog() as log,
    ):
        for folder in (run.folder, run.latest.parent) if first else ():
            clear_parts(folder)
        log.record(say)
        log.say(f"Run: {run.folder} ({runtime.paddle_version()[0]}{_processes()})")
        if dist.is_first():
            classes = {name: getattr(stage.splits, name).classes for name in ("train", "val", "test")}
            write_json(run.folder / "classes.json", classes)
        judge = judge_of(stage, run, log)
        _fit(stage, run, log, judge)
        judge.final()
        for line in stage.bad.lines():
            log.say(f"Left out, can't be read: {line}")
    return replace(config, epochs=None), run


def _new_run(config: TrainOptions) -> Run:
    """The folder of a new run, the same for all processes."""
    loss = getattr(config, "loss_name", "")
    made = new_run(config.model_save_dir, config.command, loss, config.to_dict()) if dist.is_first() else None
    run = dist.broadcast_object(made)
    assert run is not None
    return run


def _processes() -> str:
    return f", {dist.size()} processes" if dist.size() > 1 else ""


def _build(config: TrainOptions, splits: Splits, checkpoint: Path | None, say: Lines) -> Stage:
    setup.report_duplicates(splits, say)
    unseen = not set(splits.test.classes) & (set(splits.train.classes) | set(splits.val.classes))
    for before in (starting_run(config), run_of_teacher(config)):
        if (
            not setup.division_of(vars(config))
            and before is not None
            and setup.report_overlap(splits.test, before, say)
        ):
            unseen = False
    grouping.check_groups(config, splits.train)
    bad = BadPictures(len(splits.train) + len(splits.val) + len(splits.test), config.max_bad_pictures)
    check_division(config)
    paddle.seed(config.seed)
    embedder = Embedder(setup.spec_of(config))
    freeze(embedder, config.freeze)
    freeze_layers(embedder, config.freeze_layers)
    if config.freeze != "none" or config.freeze_layers:
        say(f"Frozen: {learning(embedder)}")
    if config.amp != "none" and paddle.get_device() == "cpu" and not in_bfloat16(config):
        say(f"--amp={config.amp} has no effect here: a CPU trains in bfloat16 if it computes it, through oneDNN.")
    if config.sync_bn:
        embedder = share_statistics(embedder)
    if config.recompute and not recompute_blocks(embedder.backbone):
        say(f"--recompute has no effect: {config.model} is not made of blocks.")
    made = parts(config, splits.train, embedder.size)
    for line in [*made.notes, *grouping.check_validation(config, made.loss, splits.val)]:
        say(line)
    further = pooling.further_networks(config, embedder)
    average = Average(averaged(config, embedder, made.loss), config.ema) if config.ema else None
    state = State(embedder, made.loss, optimizer(config, embedder, made.loss), average=average, further=further)
    if checkpoint is not None:
        state.restore(checkpoint)
        say(f"Resumed at step {state.step} from {checkpoint}.")
        if state.step >= config.total_iter_num:
            say(f"All of its {config.total_iter_num} steps are done; a higher --total_iter_num goes on.")
    else:
        say(initial_weights(config, embedder))
        if isinstance(config, ElemOptions) and config.init_centers == "means":
            say(centers_at_means(config, embedder, made.loss, splits.train, bad))
    dist.broadcast_weights(embedder)
    if checkpoint is None:
        for network in further.values():
            same_as(network, embedder)
        if average is not None:
            average.restart()
    forward = forward_of(config, embedder, made.loss, splits.train, say)
    return Stage(config, splits, embedder, made, state, forward, teacher_of(config, embedder, say), bad, unseen)


def _check_validation(config: TrainOptions, splits: Splits) -> None:
    for name, used in (("lr_strategy=plateau", config.lr_strategy == "plateau"), ("early_stop", config.early_stop)):
        if used and not len(splits.val):
            raise UserError(f"--{name} goes by validation pictures; there are none. See --val_classes, --val_share.")


def _sized(config: AnyTrain, splits: Splits, say: Lines) -> AnyTrain:
    """The options of a new run with the numbers of steps that --epochs means for these pictures."""
    if config.epochs is None:
        return config
    each = max(1, round(len(splits.train) / config.train_batch_size))
    total = max(1, round(config.epochs * each))
    say(f"{config.epochs:g} epochs of {each} steps: {total} steps of {config.train_batch_size} pictures.")
    config = config.with_defaults(total_iter_num=total, test_iter_step=each, save_iter_step=each)
    config.check_length()
    return config


def _fit(stage: Stage, run: Run, log: RunLog, judge: Judge) -> None:
    config, loss, teacher = stage.config, stage.parts.loss, stage.teacher
    step = _step(stage)
    stage.embedder.train()
    fit(
        stage.state,
        run,
        log,
        _plan(config),
        _shown(_batches(stage), stage, log),
        step,
        lambda: loss.figures | (teacher.figures if teacher else {}),
        _schedule(config),
        judge.scores if len(stage.splits.val) else None,
        judge.keep,
    )


def _schedule(config: TrainOptions) -> Schedule:
    name, decay = config.lr_strategy, config.plateau_factor if config.lr_strategy == "plateau" else 0.1
    steps = steps_of(config.lr_steps)
    return schedule(name, config.lr, config.total_iter_num, steps, config.warmup_steps, decay, config.plateau_patience)


def _step(stage: Stage) -> Step | PoolStep:
    config, embedder, loss, teacher = stage.config, stage.embedder, stage.parts.loss, stage.teacher
    how: dict[str, Any] = {
        "beside": (lambda embeddings, batch: teacher.loss(embeddings, batch.images)) if teacher else None,
        "autocast": _autocast(config),
        "scale": lambda: stage.state.optimizer.scale,
    }
    if isinstance(config, ElemOptions) and isinstance(loss, PoolLoss):
        gallery = stage.state.further[pooling.GALLERY]
        fast = by_onednn(config), in_bfloat16(config)
        return pooling.pool_step(config, embedder, gallery, stage.forward, fast, loss, **how)
    return Step(embedder, stage.forward, loss, config.seed, pieces=config.accumulate, **how)


def _plan(config: TrainOptions) -> Plan:
    return Plan(
        total=config.total_iter_num,
        display=config.display_iter_step,
        test=config.test_iter_step,
        save=config.save_iter_step,
        keep=config.keep,
        early_stop=config.early_stop,
    )


def _autocast(config: TrainOptions) -> dict[str, Any] | None:
    """What the network computes in; None: float32."""
    if config.amp == "none" or paddle.get_device() == "cpu":
        return None
    return {"enable": True, "dtype": config.amp, "level": "O1"}


def _shown(batches: Iterator[Batch], stage: Stage, log: RunLog) -> Iterator[Batch]:
    """The same, the first batch's pictures being shown as the network gets them."""
    first = next(batches, None)
    if first is not None:
        log.picture("train", "augmented", grid(first.images, stage.embedder.spec.picture), first.step)
        yield first
    yield from batches


def _batches(stage: Stage) -> Iterator[Batch]:
    config, picture = stage.config, stage.embedder.spec.picture
    return train_batches(
        stage.splits.train,
        stage.parts.sampler,
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
        start_step=stage.state.step,
        stop_step=config.total_iter_num,
        workers=config.num_workers,
        bad=stage.bad,
        part=(dist.rank(), dist.size()),
        cache_mb=config.cache_mb,
    )
