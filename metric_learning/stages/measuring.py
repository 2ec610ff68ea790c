"""eval: what an embedding is worth on pictures that it was not trained on."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.config import EvalOptions, fars_of
from metric_learning.data.encoded import BIN
from metric_learning.data.loader import BadPictures
from metric_learning.data.pair_lists import read_templates
from metric_learning.data.pair_sources import read_pairs
from metric_learning.data.samples import Samples
from metric_learning.data.sources import PictureSet
from metric_learning.data.splits import Splits
from metric_learning.embedder import Embedder, saved_calibration, saved_group_means
from metric_learning.engine import Predictor
from metric_learning.evaluate import Embedded, embed_set, retrieval, verification, verify_pairs
from metric_learning.extract import Reader
from metric_learning.metrics.calibration import calibrate, calibrate_all_pairs
from metric_learning.metrics.group_means import GroupMeans
from metric_learning.metrics.histogram import ScoreHistograms
from metric_learning.metrics.reranking import Rerank
from metric_learning.metrics.similarity import Calibration
from metric_learning.metrics.stored_points import StoredCounts
from metric_learning.page.material import Material
from metric_learning.report import Report
from metric_learning.runs import Run
from metric_learning.stages import calibrating, cleaning, pages, setup
from metric_learning.stages.attributes import eval_classes
from metric_learning.stages.reporting import write_report
from metric_learning.stages.voting import classifies


class Weights(NamedTuple):
    """What is measured: the weights, read and ready to run."""

    file: Path
    run: Run | None
    embedder: Embedder
    predictor: Predictor
    reader: Reader
    calibration: Calibration | None
    means: GroupMeans | None

    def about(self, config: EvalOptions, pictures: PictureSet, split: str) -> dict[str, Any]:
        """The head of the report: which weights over which pictures."""
        means = {"group means": f"taken off pairs: {', '.join(self.means.names)}"} if self.means else {}
        return setup.about(config, self.embedder, pictures, split, self.file, self.predictor.way) | means


@dataclass(frozen=True)
class Measured:
    """What was found, the pictures that could not be read, and how to fit a similarity on the same pairs."""

    material: Material
    bad: BadPictures
    calibrated: Callable[[], Calibration]

    @property
    def report(self) -> Report:
        return self.material.report


def eval(config: EvalOptions) -> None:
    """Print the table, write json and plot beside it, and with --calibrate the weights with what was fitted."""
    setup.begin(config)
    of_classes = classifies(config)
    page = pages.checked_place(config, of_classes)
    if of_classes:
        eval_classes(config)
        return
    file, run = setup.find_weights(config)
    embedder = setup.load_embedder(file, config, print)
    output = setup.output_file(config.output, run, "eval.json")
    setup.check_writable(output.parent, "--output")
    place = setup.output_file(config.calibrate, None, "calibrated.safetensors") if config.calibrate else None
    if place is not None:
        setup.check_writable(place.parent, "--calibrate")
    picture = embedder.spec.picture
    predictor = Predictor(embedder, picture.shape, config.precision)
    reader = Reader(picture, config.batch_size, config.num_workers, config.flip_test)
    calibration = saved_calibration(file) if config.templates is None else None
    means = saved_group_means(file) if config.group_means else None
    weights = Weights(file, run, embedder, predictor, reader, calibration, means)
    config = setup.with_data_of(config, run, print)
    if config.clean:
        _clean(config, weights)
        return
    for line in calibrating.mismatches(calibration, reader, means is not None) if calibration else []:
        print(line)
    found = (_over_list if config.pairs else _over_set)(config, weights)
    if not dist.is_first():
        return
    print(f"\n{found.report.text()}")
    write_report(found.report, output)
    if page is not None:
        pages.write_page(page, found.material, run)
    if place is not None:
        _calibrate(place, config, weights, found)
    for line in found.bad.lines():
        print(f"Left out, can't be read: {line}")


def _clean(config: EvalOptions, weights: Weights) -> None:
    """Which labels of the data are probably wrong: of all of it, unless a split was typed."""
    own = config.split is not None and weights.run is not None and setup.same_data(config, weights.run)
    pictures, split = choose(config.split or "all", setup.load_data(config, print, set_aside=own))
    place = cleaning.checked_place(str(config.clean), config, pictures)
    if weights.run is not None:
        cleaning.warn_of_trained(pictures, weights.run)
    bad = BadPictures(len(pictures), config.max_bad_pictures)
    found = embed_set(weights.predictor, pictures, weights.reader, bad)
    if dist.is_first():
        print("".join(f"\n{name}: {value}" for name, value in weights.about(config, pictures, split).items()))
        cleaning.clean(found, pictures.classes, place)
        for line in bad.lines():
            print(f"Left out, can't be read: {line}")


def _calibrate(place: Path, config: EvalOptions, weights: Weights, found: Measured) -> None:
    data, far = str(found.report.about["data"]), config.calibrate_far
    notes = calibrating.notes(found.report.pairs, data, weights.reader, weights.file, far, weights.means is not None)
    fitted = found.calibrated().with_notes(**notes)
    calibrating.write_calibrated(place, weights.file, weights.embedder, fitted, weights.means)
    print(calibrating.told(fitted))
    print(f"Written: {place}. The pairs above chose its thresholds: with it, they are no test any more.")


def _over_set(config: EvalOptions, weights: Weights) -> Measured:
    run = weights.run
    own = run is not None and setup.same_data(config, run)
    pictures, split = choose(config.split, setup.load_data(config, print, set_aside=own))
    if run is not None and split in ("test", "all"):
        setup.report_overlap(pictures, run, print)
    bad = BadPictures(len(pictures), config.max_bad_pictures)
    found = embed_set(weights.predictor, pictures, weights.reader, bad)
    about, apart = weights.about(config, pictures, split), found.less(weights.means)
    fit = partial(calibrate_all_pairs, apart.embeddings, apart.labels, apart.groups, config.calibrate_far)
    ranked: dict[str, Any] = {"retrieval": retrieval(found), **_reranked(config, found)}
    if found.groups is None and len(np.unique(found.labels)) < 2:
        return Measured(Material(Report(about, **ranked), found, pictures.classes), bad, fit)
    counts = StoredCounts(weights.calibration) if weights.calibration else None
    spread = ScoreHistograms() if config.report else None
    pairs = verification(apart, fars_of(config.fars), counts, histograms=spread)
    report = Report(about, verification=pairs, **ranked, **_stored(counts))
    return Measured(Material(report, found, pictures.classes, spread.counts() if spread else {}), bad, fit)


def _reranked(config: EvalOptions, found: Embedded) -> dict[str, Any]:
    """The figures of retrieval after re-ranking, where it is asked for, and what they cost."""
    if not config.rerank:
        return {}
    how, start = Rerank(config.rerank_k1, config.rerank_k2, config.rerank_lambda), time.perf_counter()
    figures = retrieval(found, rerank=how)
    return {"reranked": figures, "reranked_how": f"{how}, {time.perf_counter() - start:.1f} s"}


def _stored(counts: StoredCounts | None) -> dict[str, Any]:
    """What the stored thresholds do to the pairs that were counted, for the report."""
    if counts is None:
        return {}
    return {"stored": counts.figures(), "stored_on": calibrating.on_what(counts.calibration)}


def choose(split: str | None, splits: Splits) -> tuple[PictureSet, str]:
    """The pictures of a split, and its name; by default the test's, or all where there is no test."""
    split = split or ("test" if len(splits.test) else "all")
    if split == "all":
        parts = [splits.train, splits.val, splits.test]
        return joined(parts), "all"
    pictures: PictureSet = getattr(splits, split)
    if not len(pictures):
        raise UserError(
            f"--split={split}: the data has no {split} pictures. See --test_classes and --val_classes, or --split=all."
        )
    return pictures, split


def joined(parts: list[PictureSet]) -> PictureSet:
    """One set of several, classes of the same name being one class."""
    return PictureSet.of(Samples.join([part.samples() for part in parts]))


def _over_list(config: EvalOptions, weights: Weights) -> Measured:
    root = config.data_dir
    templates = read_templates(Path(config.templates), root) if config.templates else None
    pairs = read_pairs(str(config.pairs), root, of_templates=templates is not None)
    pictures = sorted(set(templates.paths)) if templates else [str(item) for item in pairs.items]
    bad = BadPictures(len(pictures), config.max_bad_pictures)
    how = (fars_of(config.fars), config.folds, templates, weights.means)
    found = verify_pairs(weights.predictor, pairs, weights.reader, bad, *how)
    everyone = PictureSet(pictures, np.zeros(len(pictures), np.int64), [], [])
    about = weights.about(config, everyone, f"pairs, {pairs.kind}")
    about |= {"pictures / classes": f"{len(pictures):,} / -", "pairs left out": found.left_out}
    if config.data_dir is None or pairs.kind == BIN:
        about["data"] = str(config.pairs)
    if templates:
        about["templates"] = f"{len(set(templates.templates)):,} of {config.templates}"
    said = f"the {len(pairs.a):,} pairs of {config.pairs}"
    counts = StoredCounts(weights.calibration) if weights.calibration else None
    for name, (same, other) in found.scores.items():
        if counts is not None:
            counts.add(name, same, other)
    report = Report(about, None, found.verification, said, found.folds, found.best, **_stored(counts))
    spread = ScoreHistograms()
    for name, (same, other) in found.scores.items():
        spread.add(name, same, other)
    material = Material(report, histograms=spread.counts(), hardest=found.hardest)
    return Measured(material, bad, partial(calibrate, found.scores, config.calibrate_far))
