"""Which pictures of each class train, which choose the model (val), and which give the figure (test).

For attributes, whose classes are the same everywhere; splits.py is for identities. Every class, and every group within
it, gives the same share. Pictures are chosen by a hash of (seed, purpose, path below the data folder), so the choice is
the same for every order of the list and wherever the data lies.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError, check_range
from metric_learning.data.lists import PLAIN, CsvRules
from metric_learning.data.names import Coded
from metric_learning.data.samples import Samples
from metric_learning.data.sources import PictureSet
from metric_learning.data.splits import Splits, allocate, describe, hashed, read_as, read_lists

Rows = NDArray[np.int64]
TEST_SHARE = 0.2  # where the data names no test pictures and nothing else is asked for


@dataclass(frozen=True)
class Division:
    """How the pictures are divided: shares in 0..1 of each class, or with folds > 1 val is fold 1 <= fold <= folds.

    test_share None: TEST_SHARE where the data names no test pictures, none where it does. seed: which pictures.
    """

    val_share: float = 0.2
    test_share: float | None = None
    folds: int = 0
    fold: int = 1
    seed: int = 0


USUAL = Division()


def divide(
    data_dir: str | Path,
    dataset: str | None = None,
    division: Division = USUAL,
    *,
    train_list: str | Path | None = None,
    test_list: str | Path | None = None,
    rules: CsvRules = PLAIN,
) -> Splits:
    """Read the data and divide the pictures of each class.

    train, val and test number the classes alike: all of them have the classes of the training pictures. The label of a
    picture of a list without labels is -1. Raises UserError where anything is missing, malformed or can't be divided.
    """
    check_range("--val_share", division.val_share, 0, 0.9)
    kind, parts = read_lists(Path(data_dir), dataset, train_list, test_list, replace(rules, labelled=False))
    notes = [read_as(data_dir, kind)]
    train = Samples.join([parts.pop(name) for name in ("all", "train") if name in parts])
    train = _once(train, str(data_dir), notes)
    root = Path(data_dir).parent if Path(data_dir).is_file() else Path(data_dir)
    classes = sorted(train.labels.present())
    if len(classes) < 2:
        raise UserError(f"{data_dir} has {len(classes)} class to learn; to tell apart there must be at least 2.")
    train, test = _test(train, parts, division, root, notes)
    train, val = _val(train, parts, division, root, notes)
    sets = {name: _coded(part, classes, name) for name, part in (("train", train), ("val", val), ("test", test))}
    for name, pictures in sets.items():
        notes.append(describe(name, pictures) if name == "train" or not len(pictures) else _count(name, pictures))
    return Splits(**sets, kind=kind, notes=notes)


def _once(samples: Samples, where: str, notes: list[str]) -> Samples:
    """Each picture once, lest it is in two parts; a UserError where one has two labels."""
    first: dict[str, int] = {}
    for row, path in enumerate(samples.paths):
        if samples.labels.codes[first.setdefault(os.path.abspath(path), row)] != samples.labels.codes[row]:
            raise UserError(f"{where}: {path} stands there twice, with two labels. Leave one of them out.")
    if len(first) == len(samples):
        return samples
    notes.append(f"train: {len(samples) - len(first)} rows name a picture once more, and are left out")
    return samples.take(np.array(list(first.values()), np.int64))


def _test(
    train: Samples, parts: dict[str, Samples], division: Division, root: Path, notes: list[str]
) -> tuple[Samples, Samples]:
    share = division.test_share
    if "test" in parts:
        if share:
            raise UserError(f"--test_share={share:g}: the data names its own test pictures; drop the option.")
        return train, parts["test"]
    share = TEST_SHARE if share is None else share
    check_range("--test_share", share, 0, 0.9)
    if not share:
        return train, Samples.of([])
    chosen = _share_of(train, share, _ranks(train, division.seed, "test", root))
    notes.append(f"test: {share:g} of each class, chosen by seed {division.seed} (--test_share)")
    return _apart(train, chosen)


def _val(
    train: Samples, parts: dict[str, Samples], division: Division, root: Path, notes: list[str]
) -> tuple[Samples, Samples]:
    if "val" in parts:
        if division.folds:
            raise UserError("--folds: the data names its own validation pictures; drop the option.")
        return train, parts["val"]
    ranks = _ranks(train, division.seed, "val", root)
    if division.folds:
        chosen = np.flatnonzero(_folds_of(train, division.folds, ranks) == division.fold - 1)
        notes.append(f"val: fold {division.fold} of {division.folds}, chosen by seed {division.seed} (--folds)")
    elif division.val_share:
        chosen = _share_of(train, division.val_share, ranks)
        notes.append(f"val: {division.val_share:g} of each class, chosen by seed {division.seed} (--val_share)")
    else:
        return train, Samples.of([])
    return _apart(train, chosen)


def _ranks(samples: Samples, seed: int, purpose: str, root: Path) -> NDArray[np.uint64]:
    base = os.path.join(os.path.abspath(root), "")
    names = (os.path.abspath(path).removeprefix(base).replace(os.sep, "/") for path in samples.paths)
    return np.fromiter((hashed(seed, purpose, name) for name in names), np.uint64, len(samples))


def _strata(samples: Samples, ranks: NDArray[np.uint64]) -> list[Rows]:
    """The rows of each group of each class, in the order of their ranks; equal ranks in that of the list."""
    labels, groups = samples.labels.sorted(), samples.groups.sorted()
    stratum = labels.codes.astype(np.int64) * max(len(groups.names), 1) + groups.codes
    order = np.lexsort((ranks, stratum))
    return np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1)


def _share_of(samples: Samples, share: float, ranks: NDArray[np.uint64]) -> Rows:
    """That share of the rows, each group of each class giving its own share."""
    strata = _strata(samples, ranks)
    counts = allocate([len(rows) for rows in strata], int(share * len(samples) + 0.5))
    return np.sort(np.concatenate([rows[:count] for rows, count in zip(strata, counts, strict=True)]))


def _folds_of(samples: Samples, folds: int, ranks: NDArray[np.uint64]) -> Rows:
    """The fold 0..folds - 1 of each row: within a group of a class, and in all, their sizes differ by at most 1."""
    if folds > len(samples):
        raise UserError(f"--folds={folds} is more than the {len(samples)} pictures to divide.")
    found = np.empty(len(samples), np.int64)
    order = np.concatenate(_strata(samples, ranks))
    found[order] = np.arange(len(samples)) % folds
    return found


def _apart(samples: Samples, chosen: Rows) -> tuple[Samples, Samples]:
    gone = np.zeros(len(samples), np.bool_)
    gone[chosen] = True
    rest = samples.take(np.flatnonzero(~gone))
    if not len(rest):
        raise UserError("No pictures are left to train on. Lower --val_share and --test_share.")
    return rest, samples.take(chosen)


def _coded(samples: Samples, classes: list[str], name: str) -> PictureSet:
    """The pictures with their labels as numbers of `classes`; -1 for none."""
    place = {label: number for number, label in enumerate(classes)} | {"": -1}
    unknown = sorted(samples.labels.present() - set(place))
    if unknown:
        raise UserError(
            f"{len(unknown)} classes of the {name} pictures are not among those to train on, {unknown[0]!r} the first."
        )
    codes = np.array([place.get(label, -1) for label in samples.labels.names] or [-1], np.int64)
    found = PictureSet.of(Samples(samples.paths, Coded(np.zeros(len(samples), np.uint8), [""]), samples.groups))
    labels = codes[samples.labels.codes] if len(samples) else np.empty(0, np.int64)
    return PictureSet(found.paths, labels, classes, found.groups)


def _count(name: str, pictures: PictureSet) -> str:
    unknown = int((pictures.labels < 0).sum())
    return f"{name}: {len(pictures)} pictures{f', {unknown} of them without a label' if unknown else ''}"
