"""What chooses the best weights of a run, and what the run ends with: figures of embeddings, or of classes."""

from dataclasses import dataclass
from typing import Any, Protocol

from metric_learning import dist, watch
from metric_learning.checkpoint import State
from metric_learning.class_report import ClassReport
from metric_learning.config import TrainOptions
from metric_learning.data.loader import BadPictures
from metric_learning.data.predictions import write_predictions
from metric_learning.data.splits import Splits
from metric_learning.embedder import ClassesOf, Embedder, save_embedder, saved_classes
from metric_learning.engine import Predictor
from metric_learning.evaluate import Embedded, embed_set, retrieval, verification
from metric_learning.extract import Reader
from metric_learning.files import read_metadata
from metric_learning.log import RunLog
from metric_learning.losses import ElementLoss
from metric_learning.losses.classifier import classifier_of
from metric_learning.report import Report
from metric_learning.runs import Run
from metric_learning.stages import attributes, calibrating, grouping, setup
from metric_learning.stages.parts import Forward, Parts
from metric_learning.stages.teaching import Teacher
from metric_learning.train import Scores
from metric_learning.weights import load_weights

FARS = (0.1, 0.01, 0.001)


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

    def reader(self, quiet: bool = False) -> Reader:
        return Reader(self.embedder.spec.picture, self.config.test_batch_size, self.config.num_workers, quiet=quiet)

    def predictor(self) -> Predictor:
        return Predictor(self.embedder, self.embedder.spec.picture.shape, self.config.precision)

    def chosen(self, run: Run) -> str:
        """Load the weights that the run ends with, the best on the validation pictures, else the newest; say which."""
        dist.barrier()  # the first process has written them
        load_weights(self.embedder, run.best)
        step = read_metadata(run.best)["about"]["step"]
        if not len(self.splits.val):
            return f"Weights of step {step}, the last (there is no validation to choose by): {run.best}"
        worse = "; no later ones were better, so the training has not helped" if step == 0 else ""
        return f"Best weights, those of step {step}{worse}: {run.best}"


class Judge(Protocol):
    """scores(): of the validation pictures, by the weights as they are. keep(about): write those. final(): the end."""

    def scores(self) -> Scores: ...
    def keep(self, about: dict[str, Any]) -> None: ...
    def final(self) -> None: ...


def judge_of(stage: Stage, run: Run, log: RunLog) -> Judge:
    return (ClassJudge if setup.division_of(vars(stage.config)) else EmbeddingJudge)(stage, run, log)


class EmbeddingJudge:
    """By distances: retrieval among the validation classes, which are not those trained on."""

    def __init__(self, stage: Stage, run: Run, log: RunLog) -> None:
        self.stage, self.run, self.log = stage, run, log

    def scores(self) -> Scores:
        stage = self.stage
        embedded = embed_set(stage.predictor(), stage.splits.val, stage.reader(quiet=True), stage.bad)
        grouping.follow(stage.parts.loss, embedded, self.log, stage.state.step)
        found = retrieval(embedded)
        self._show(embedded)
        return {f"val {name}": float(found[name] or 0.0) for name in ("recall@1", "map@r")}

    def _show(self, found: Embedded) -> None:
        """How some of the pictures lie, to VisualDL; in the projector at the evaluations 0, 1, 2, 4, 8, ..."""
        state, number = self.stage.state, len(self.stage.state.scores)
        rows = watch.shown_rows(found.labels)
        embeddings, labels = found.embeddings[rows], found.labels[rows]
        self.log.histograms("val", watch.lying(embeddings, labels), state.step)
        if number & (number - 1) == 0:
            about = {"class": [self.stage.splits.val.classes[label] for label in labels]}
            if found.groups is not None:
                about["group"] = found.groups[rows].tolist()
            about["picture"] = [found.paths[row] for row in rows]
            self.log.embeddings("val", f"step_{state.step:06d}", watch.projected(embeddings), about)

    def keep(self, about: dict[str, Any]) -> None:
        if dist.is_first():
            save_embedder(self.run.best, self.stage.embedder, about)

    def final(self) -> None:
        """The best weights, measured once on the test classes."""
        stage, run, config = self.stage, self.run, self.stage.config
        self.log.say(stage.chosen(run))
        predictor, reader, test = stage.predictor(), stage.reader(), stage.splits.test
        train = stage.splits.train
        means = grouping.keep_means(run, predictor, train, reader, stage.bad) if config.group_means else None
        data = config.data_dir or setup.DEMO_FOLDER
        self.log.say(calibrating.calibrate_run(run, predictor, stage.splits.val, reader, stage.bad, data, means))
        if not len(test):
            return
        found = embed_set(predictor, test, reader, stage.bad)
        about = setup.about(config, stage.embedder, test, "test", run.best, predictor.way) | {"seed": config.seed}
        pairs = verification(found.less(means), FARS) if found.groups is not None else None
        report = Report(about, retrieval(found), pairs)
        if dist.is_first():
            report.write_json(run.results)
        self.log.say(f"\nTest classes{', none of them seen in training' if stage.unseen else ''}:\n{report.text()}")
        self.log.say(f"Written: {run.results}")


class ClassJudge:
    """By classes: the accuracy on the validation pictures, whose classes are those trained on."""

    def __init__(self, stage: Stage, run: Run, log: RunLog) -> None:
        self.stage, self.run, self.log = stage, run, log

    def _classes(self) -> ClassesOf:
        loss = self.stage.parts.loss
        assert isinstance(loss, ElementLoss)
        names = self.stage.splits.train.classes
        return ClassesOf(names, classifier_of(loss).first(len(names)))  # with --class_dim there may be empty ones

    def scores(self) -> Scores:
        stage = self.stage
        how = (stage.predictor(), self._classes(), stage.splits.val, stage.reader(quiet=True), stage.bad)
        _, found = attributes.predicted(*how)
        assert found is not None
        return attributes.scores_of(found)

    def keep(self, about: dict[str, Any]) -> None:
        known = self._classes()  # of several processes each has a part of them
        if dist.is_first():
            save_embedder(self.run.best, self.stage.embedder, about, classes=known)

    def final(self) -> None:
        """What the best weights say of the validation pictures, kept; the test pictures, measured once."""
        stage, run = self.stage, self.run
        self.log.say(stage.chosen(run))
        known = saved_classes(run.best)
        assert known is not None
        predictor, reader, test = stage.predictor(), stage.reader(), stage.splits.test
        if len(stage.splits.val):
            told, _ = attributes.predicted(predictor, known, stage.splits.val, reader, stage.bad)
            if dist.is_first():
                write_predictions(run.val_predictions, told)
            self.log.say(f"Written: {run.val_predictions}")
        _, found = attributes.predicted(predictor, known, test, reader, stage.bad) if len(test) else (None, None)
        if found is None:
            if len(test):
                self.log.say("The test pictures have no labels: infer.py says what they are of.")
            return
        about = setup.about(stage.config, stage.embedder, test, "test", run.best, predictor.way)
        report = ClassReport(about | {"seed": stage.config.seed}, found, "test")
        if dist.is_first():
            report.write_json(run.results)
        self.log.say(f"\nTest pictures:\n{report.text()}")
        self.log.say(f"Written: {run.results}")
