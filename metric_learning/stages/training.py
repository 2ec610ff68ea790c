"""train_elem and train_pair: they differ in options, sampler and loss; all the rest is one piece."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle

from metric_learning import dist, runtime
from metric_learning.average import Average
from metric_learning.batch_norm import share_statistics
from metric_learning.checkpoint import Run, State, new_run, newest_run
from metric_learning.config import ElemOptions, PairOptions, TrainOptions, options, steps_of
from metric_learning.data.augmentation import Augmentation
from metric_learning.data.loader import BadPictures, Batch, own_slots, train_batches
from metric_learning.data.splits import Splits
from metric_learning.data.transforms import TrainTransform
from metric_learning.embedder import Embedder
from metric_learning.engine import Predictor
from metric_learning.evaluate import embed_set, retrieval, verification
from metric_learning.extract import Reader
from metric_learning.files import read_metadata, write_json
from metric_learning.freezing import freeze, freeze_layers, learning
from metric_learning.log import NoLog, RunLog
from metric_learning.losses import PoolLoss
from metric_learning.pool_step import PoolStep, same_as
from metric_learning.recompute import recompute_blocks
from metric_learning.report import Report
from metric_learning.schedule import schedule
from metric_learning.stages import calibrating, grouping, pooling, setup
from metric_learning.stages.parts import Forward, Parts, by_onednn, forward_of, optimizer, parts
from metric_learning.stages.starting import centers_at_means, initial_weights, resume, start, starting_run
from metric_learning.stages.teaching import Teacher, named_teacher, next_generation, run_of_teacher, teacher_of
from metric_learning.step import Step
from metric_learning.train import Plan, Scores, fit
from metric_learning.weights import load_weights

FARS = (0.1, 0.01, 0.001)


def train_elem(config: ElemOptions) -> None:
    """Stage one. Raises UserError for all that the user can mend; what a run produced stays on disk."""
    say = Lines()
    run, checkpoint, config = resume(config)
    if run is None:
        config = start(config, None, say)
    _train_all(config, run, checkpoint, say)


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


@dataclass(frozen=True)
class Stage:
    """All that one stage trains: its options, pictures, network, loss, and the state that is saved."""

    config: TrainOptions
    splits: Splits
    embedder: Embedder
    parts: Parts
    state: State
    forward: Forward
    teacher: Teacher | None
    bad: BadPictures
    unseen: bool  # whether the test classes took no part in this training nor in that of the weights it starts from


def _train_all(config: TrainOptions, run: Run | None, checkpoint: Path | None, say: Lines) -> None:
    """The run, then the generations of students behind it, each a run of its own."""
    config = named_teacher(config)
    run = _train(config, run, checkpoint, say)
    while config.generation < config.generations:
        say = Lines()
        config, begun = next_generation(config, run, say)
        run = _train(config, begun, begun.latest if begun and begun.latest.is_file() else None, say)


def _train(config: TrainOptions, run: Run | None, checkpoint: Path | None, say: Lines) -> Run:
    """Build everything first, so that what can't work leaves no run behind; then train, then measure once."""
    setup.begin(config)
    runtime.keep_freed_memory()
    for item in options(type(config)):
        if item.name in config.typed and item.metadata["retired"]:
            say(f"--{item.name} is accepted and has no effect: {item.metadata['retired']}.")
    if dist.is_first():
        setup.check_writable(config.model_save_dir if run is None else run.folder, "--model_save_dir")
    stage = _build(config, checkpoint, say)
    if run is None:
        run = _new_run(config)
    with RunLog(run.folder) if dist.is_first() else NoLog() as log:
        log.record(say)
        log.say(f"Run: {run.folder} ({runtime.paddle_version()[0]}{_processes()})")
        if dist.is_first():
            classes = {name: getattr(stage.splits, name).classes for name in ("train", "val", "test")}
            write_json(run.folder / "classes.json", classes)
        _fit(stage, run, log)
        _final(stage, run, log)
    return run


def _new_run(config: TrainOptions) -> Run:
    """The folder of a new run, the same for all processes."""
    loss = getattr(config, "loss_name", "")
    made = new_run(config.model_save_dir, config.command, loss, config.to_dict()) if dist.is_first() else None
    run = dist.broadcast_object(made)
    assert run is not None
    return run


def _processes() -> str:
    return f", {dist.size()} processes" if dist.size() > 1 else ""


def _build(config: TrainOptions, checkpoint: Path | None, say: Lines) -> Stage:
    splits = setup.load_data(config, say)
    setup.report_duplicates(splits, say)
    unseen = not set(splits.test.classes) & (set(splits.train.classes) | set(splits.val.classes))
    for before in (starting_run(config), run_of_teacher(config)):
        if before is not None and setup.report_overlap(splits.test, before, say):
            unseen = False
    grouping.check_groups(config, splits.train)
    bad = BadPictures(len(splits.train) + len(splits.val) + len(splits.test), config.max_bad_pictures)
    own_slots(config.train_batch_size, (dist.rank(), dist.size()))  # a batch that can't be divided is refused here
    paddle.seed(config.seed)
    embedder = Embedder(setup.spec_of(config))
    freeze(embedder, config.freeze)
    freeze_layers(embedder, config.freeze_layers)
    if config.freeze != "none" or config.freeze_layers:
        say(f"Frozen: {learning(embedder)}")
    if config.amp != "none" and paddle.get_device() == "cpu":
        say(f"--amp={config.amp} has no effect on a CPU.")
    if config.sync_bn:
        embedder = share_statistics(embedder)
    if config.recompute and not recompute_blocks(embedder.backbone):
        say(f"--recompute has no effect: {config.model} is not made of blocks.")
    made = parts(config, splits.train, embedder.size)
    for line in [*made.notes, *grouping.check_validation(config, made.loss, splits.val)]:
        say(line)
    further = pooling.further_networks(config, embedder)
    average = Average(embedder, config.ema) if config.ema else None
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


def _fit(stage: Stage, run: Run, log: RunLog) -> None:
    config, embedder, loss = stage.config, stage.embedder, stage.parts.loss
    picture, teacher = embedder.spec.picture, stage.teacher
    step = _step(stage)

    def evaluate() -> Scores:
        reader = Reader(picture, config.test_batch_size, config.num_workers, quiet=True)
        predictor = Predictor(embedder, picture.shape, config.precision)
        embedded = embed_set(predictor, stage.splits.val, reader, stage.bad)
        grouping.follow(loss, embedded, log, stage.state.step)
        found = retrieval(embedded)
        return {f"val {name}": float(found[name] or 0.0) for name in ("recall@1", "map@r")}

    embedder.train()
    fit(
        stage.state,
        run,
        log,
        _plan(config),
        _batches(stage),
        step,
        lambda: loss.figures | (teacher.figures if teacher else {}),
        schedule(config.lr_strategy, config.lr, config.total_iter_num, steps_of(config.lr_steps), config.warmup_steps),
        evaluate if len(stage.splits.val) else None,
    )


def _step(stage: Stage) -> Step | PoolStep:
    config, embedder, loss, teacher = stage.config, stage.embedder, stage.parts.loss, stage.teacher
    how: dict[str, Any] = {
        "beside": (lambda embeddings, batch: teacher.loss(embeddings, batch.images)) if teacher else None,
        "autocast": _autocast(config),
        "scale": lambda: stage.state.optimizer.scale,
    }
    if isinstance(config, ElemOptions) and isinstance(loss, PoolLoss):
        gallery = stage.state.further[pooling.GALLERY]
        return pooling.pool_step(config, embedder, gallery, stage.forward, by_onednn(config), loss, **how)
    return Step(embedder, stage.forward, loss, config.seed, pieces=config.accumulate, **how)


def _plan(config: TrainOptions) -> Plan:
    return Plan(
        total=config.total_iter_num,
        display=config.display_iter_step,
        test=config.test_iter_step,
        save=config.save_iter_step,
        keep=config.keep,
    )


def _autocast(config: TrainOptions) -> dict[str, Any] | None:
    """What the network computes in; None: float32."""
    if config.amp == "none" or paddle.get_device() == "cpu":
        return None
    return {"enable": True, "dtype": config.amp, "level": "O1"}


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
    )


def _final(stage: Stage, run: Run, log: RunLog) -> None:
    """The best weights, measured once on the test classes."""
    config, embedder, test = stage.config, stage.embedder, stage.splits.test
    dist.barrier()  # the first process has written them
    load_weights(embedder, run.best)
    log.say(_chosen(stage, run))
    picture = embedder.spec.picture
    predictor = Predictor(embedder, picture.shape, config.precision)
    reader = Reader(picture, config.test_batch_size, config.num_workers)
    means = grouping.keep_means(run, predictor, stage.splits.train, reader, stage.bad) if config.group_means else None
    data = config.data_dir or setup.DEMO_FOLDER
    log.say(calibrating.calibrate_run(run, predictor, stage.splits.val, reader, stage.bad, data, means))
    if len(test):
        found = embed_set(predictor, test, reader, stage.bad)
        about = setup.about(config, embedder, test, "test", run.best, predictor.way) | {"seed": config.seed}
        pairs = verification(found.less(means), FARS) if found.groups is not None else None
        report = Report(about, retrieval(found), pairs)
        if dist.is_first():
            report.write_json(run.results)
        log.say(f"\nTest classes{', none of them seen in training' if stage.unseen else ''}:\n{report.text()}")
        log.say(f"Written: {run.results}")
    for line in stage.bad.lines():
        log.say(f"Left out, can't be read: {line}")


def _chosen(stage: Stage, run: Run) -> str:
    """Which weights the run ends with: the best on the validation classes; the newest where there are none."""
    step = read_metadata(run.best)["about"]["step"]
    if not len(stage.splits.val):
        return f"Weights of step {step}, the last (there are no validation classes to choose by): {run.best}"
    worse = "; no later ones were better, so the training has not helped" if step == 0 else ""
    return f"Best weights, those of step {step}{worse}: {run.best}"
