"""Which pictures train, which choose the model (val), and which give the figure (test): classes that do not overlap.

Classes are chosen by a hash of (seed, purpose, class name): the choice is the same for every file order, operating
system and NumPy version, and a class added later does not reshuffle the rest.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError, check_range
from metric_learning.data.lists import PLAIN, CsvRules, read_list
from metric_learning.data.names import Coded
from metric_learning.data.samples import Parts, Samples
from metric_learning.data.sources import SOP_LISTS, PictureSet, read_parts, recognise
from metric_learning.data.walk import check_folder

Numbers = NDArray[np.int64]

# The least number of classes from which the default splits any off, and the share of them.
DEFAULTS = {"test": (4, 0.2), "val": (10, 0.1)}


@dataclass(frozen=True, eq=False)
class Splits:
    """train, val and test pictures (val and test may be empty), the kind of source, and lines to show the user."""

    train: PictureSet
    val: PictureSet
    test: PictureSet
    kind: str
    notes: list[str]


def load_splits(
    data_dir: str | Path,
    dataset: str | None = None,
    *,
    test_classes: float | None = None,
    val_classes: float | None = None,
    seed: int = 0,
    train_list: str | Path | None = None,
    test_list: str | Path | None = None,
    rules: CsvRules = PLAIN,
    set_aside: bool = True,
) -> Splits:
    """Read the data and split it by class.

    `test_classes` is taken from all classes and `val_classes` from those left to train: None is the default (0.2 and
    0.1), a number below 1 a share, from 1 on a count, 0 none. Data that names its own test (val) pictures keeps them;
    then only None and 0 make sense. set_aside: False where nothing is trained: None then takes no classes away, and
    what the data names stays. Raises UserError where anything is missing, malformed or cannot be split so.
    """
    check_amount("--test_classes", test_classes)
    check_amount("--val_classes", val_classes)
    kind, parts = read_lists(Path(data_dir), dataset, train_list, test_list, rules)
    notes = [read_as(data_dir, kind)]
    if not set_aside:
        test_classes = 0.0 if test_classes is None and "test" not in parts else test_classes
        val_classes = 0.0 if val_classes is None and "val" not in parts else val_classes
    if kind == "sop" and "test" not in parts and test_classes is None:
        wanted = SOP_LISTS["test"]
        raise UserError(
            f"{data_dir} has no {wanted}; add it, or set --test_classes to take classes from the training list."
        )
    # Taken out of `parts`, so that what is split up is let go of.
    train = Samples.join([parts.pop(name) for name in ("all", "train") if name in parts] or [Samples.of([])])
    measured_only = not set_aside and "test" in parts
    if np.count_nonzero(train.labels.counts()) < 2 and not measured_only:
        raise UserError(f"{data_dir} has fewer than 2 classes to train on; metric learning needs at least 2.")
    chosen = "test" not in parts
    train, test = _part(train, parts, "test", test_classes, seed, notes)
    if chosen and "val" in parts:
        parts["val"] = _without(parts["val"], test.labels.present(), notes)
    train, val = _part(train, parts, "val", val_classes, seed, notes)
    notes += _overlaps(train, val, test)
    sets = {"train": PictureSet.of(train), "val": PictureSet.of(val), "test": PictureSet.of(test)}
    notes += [describe(name, pictures) for name, pictures in sets.items()]
    return Splits(**sets, kind=kind, notes=notes)


def read_as(data_dir: str | Path, kind: str) -> str:
    return f"data: {data_dir} read as {kind!r} (--dataset changes that)"


def check_amount(what: str, value: float | None) -> None:
    """None, 0, a share between 0 and 1, or a whole number from 1 on; anything else is a UserError."""
    if value is None:
        return
    check_range(what, value, 0)
    if value > 1 and value != int(value):
        raise UserError(f"{what} must be a share below 1 or a whole number of classes; got {value}.")


# ---- reading


def read_lists(
    data_dir: Path,
    dataset: str | None,
    train_list: str | Path | None,
    test_list: str | Path | None,
    rules: CsvRules = PLAIN,
) -> tuple[str, Parts]:
    """(kind of source, its parts): of the data folder, or of the lists that are named.

    Only the test list may lack labels, where the rules let it.
    """
    kind, parts = _read_lists(data_dir, dataset, train_list, test_list, rules)
    if rules.group_column is not None and kind != "csv":
        raise UserError(
            f"--group_column={rules.group_column} names a column of a csv, and {data_dir} is read as {kind!r}. "
            "Leave it out."
        )
    return kind, parts


def _read_lists(
    data_dir: Path,
    dataset: str | None,
    train_list: str | Path | None,
    test_list: str | Path | None,
    rules: CsvRules,
) -> tuple[str, Parts]:
    for_training = replace(rules, labelled=True)
    if train_list is None and test_list is None:
        kind = dataset or recognise(data_dir)
        return kind, read_parts(data_dir, kind, for_training)
    check_folder(data_dir)
    here, for_training = replace(rules, folder=data_dir), replace(for_training, folder=data_dir)
    kind, parts = read_list(find_list(train_list or _default_list(data_dir), data_dir), data_dir, for_training)
    if dataset not in (None, kind):
        raise UserError(
            f"--train_list and --test_list name {kind} lists, which --dataset={dataset} does not read; drop one."
        )
    if kind == "sop":
        parts = {"train": parts["all"]}
        test_list = test_list or (SOP_LISTS["test"] if (data_dir / SOP_LISTS["test"]).is_file() else None)
    if test_list is not None:
        if "test" in parts:
            raise UserError(f"--test_list={test_list}: the split column of the training list names test pictures too.")
        test_kind, test_parts = read_list(find_list(test_list, data_dir), data_dir, here)
        if test_kind != kind:
            raise UserError(
                f"--test_list={test_list} is a {test_kind} list but the training list is {kind}; use one kind."
            )
        if strange := sorted(set(test_parts) - {"all", "test"}):
            raise UserError(
                f"--test_list={test_list}: its split column names {' and '.join(strange)} pictures too; leave the "
                "column out, or give the file by --data_dir."
            )
        parts["test"] = Samples.join(list(test_parts.values()))
    return kind, parts


def _default_list(data_dir: Path) -> Path:
    if not (data_dir / SOP_LISTS["train"]).is_file():
        raise UserError("--test_list needs --train_list as well.")
    return data_dir / SOP_LISTS["train"]


def find_list(name: str | Path, data_dir: Path) -> Path:
    for path in (Path(name), data_dir / name):
        if path.is_file():
            return path
    raise UserError(f"{name} is neither a file nor one in {data_dir}; check --train_list and --test_list.")


# ---- choosing


def _part(
    train: Samples, parts: Parts, name: str, amount: float | None, seed: int, notes: list[str]
) -> tuple[Samples, Samples]:
    """Split `name` ("test" or "val") off: (what is left to train, that part). Given pictures are kept as they are."""
    flag = f"--{name}_classes"
    if amount == 0:
        return train, Samples.of([])
    if name in parts:
        if amount is not None:
            raise UserError(
                f"{flag}={amount:g}: the data names its own {name} pictures; drop the flag, or give 0 for none."
            )
        return train, parts[name]
    counts = train.labels.counts()
    count = _class_count(name, amount, counts, notes)
    if not count:
        return train, Samples.of([])
    chosen = _choose(train, counts, name, count, seed)
    notes.append(f"{name}: {len(chosen)} of {np.count_nonzero(counts)} classes, chosen by seed {seed} ({flag})")
    goes = np.zeros(len(counts), np.bool_)
    goes[chosen] = True
    gone = goes[train.labels.codes]
    return train.take(np.flatnonzero(~gone)), train.take(np.flatnonzero(gone))


def _without(val: Samples, classes: set[str], notes: list[str]) -> Samples:
    """The val pictures that the data names, but for those of classes that were split off for the test."""
    gone = np.array([name in classes for name in val.labels.names], np.bool_)[val.labels.codes]
    if gone.any():
        notes.append(f"val: {np.count_nonzero(gone)} pictures of the classes of the test are left out")
    return val.take(np.flatnonzero(~gone))


def _class_count(name: str, amount: float | None, counts: Numbers, notes: list[str]) -> int:
    """How many classes to split off; 0, with a note, where the default finds too few."""
    total = np.count_nonzero(counts)
    if amount is None:
        least, share = DEFAULTS[name]
        paired = np.count_nonzero(counts > 1)
        if total < least or (name == "val" and paired < 2):
            notes.append(f"{name}: no classes split off, {total} to train on are too few (--{name}_classes forces it)")
            return 0
        return max(2, int(share * total + 0.5))
    count = max(1, int(amount * total + 0.5)) if amount < 1 else int(amount)
    if count > total - 2:
        raise UserError(
            f"--{name}_classes={amount:g} would take {count} of {total} classes; at least 2 must be left to train on."
        )
    return count


def _choose(train: Samples, counts: Numbers, name: str, count: int, seed: int) -> Numbers:
    """The codes of the classes to split off; counts: how many pictures those of train.labels.names have, 0 or more."""
    names = train.labels.names
    there = np.array(sorted(np.flatnonzero(counts).tolist(), key=names.__getitem__), np.int64)
    ranks = np.fromiter((hashed(seed, name, names[code]) for code in there), np.uint64, len(there))
    ranked = there[np.argsort(ranks, kind="stable")]  # of equal ranks the first name comes first
    group_of = _first_groups(train)
    if name == "test":
        return _by_group(ranked, group_of, count)
    # A query without a positive says nothing, so val takes classes of one picture last.
    paired, singles = ranked[counts[ranked] > 1], ranked[counts[ranked] == 1]
    first = _by_group(paired, group_of, min(count, len(paired)))
    return np.concatenate([first, singles[: max(0, count - len(paired))]])


def _first_groups(train: Samples) -> Coded:
    """The group of each class's first picture, by the class's code."""
    found = np.zeros(len(train.labels.names), np.int64)
    found[train.labels.codes[::-1]] = train.groups.codes[::-1]  # of several for one place the last stays
    return Coded(found, train.groups.names)


def _by_group(ranked: Numbers, group_of: Coded, count: int) -> Numbers:
    """The first `count` of the ranked classes, each group giving its share."""
    groups = group_of.take(ranked).sorted()
    by_group = ranked[np.argsort(groups.codes, kind="stable")]
    strata = np.split(by_group, np.cumsum(groups.counts()))[:-1]  # the rest behind the last is nothing
    shares = allocate([len(stratum) for stratum in strata], count)
    return np.concatenate([ranked[:0], *(stratum[:share] for stratum, share in zip(strata, shares, strict=True))])


def allocate(sizes: Sequence[int], count: int) -> list[int]:
    """Share `count` out in proportion to `sizes` by largest remainder (ties: first); each share is at most its size."""
    total = sum(sizes)
    shares = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda k: (-(sizes[k] * count % total), k))
    for k in by_remainder[: count - sum(shares)]:
        shares[k] += 1
    return shares


def hashed(seed: int, purpose: str, label: str) -> int:
    """A hash of eight bytes: the place of a class in the order in which they are chosen."""
    text = f"{seed}/{purpose}/{label}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


# ---- telling


def _overlaps(train: Samples, val: Samples, test: Samples) -> list[str]:
    """Given lists may share classes with the training list; then their figure is not one of unseen classes."""
    known = train.labels.present()
    notes = []
    both = sorted(val.labels.present() & test.labels.present())
    if both:
        notes.append(
            f"WARNING: {len(both)} classes are in both val and test ({', '.join(both[:3])}...): the best weights are "
            "chosen by pictures of classes to be tested"
        )
    for name, samples in (("val", val), ("test", test)):
        shared = sorted(samples.labels.present() & known)
        if shared:
            notes.append(
                f"WARNING: {len(shared)} classes are in both train and {name} ({', '.join(shared[:3])}...): "
                f"the {name} figure is not one of unseen classes"
            )
    return notes


def describe(name: str, pictures: PictureSet) -> str:
    if not len(pictures):
        return f"{name}: no pictures"
    singles = int((pictures.class_counts() == 1).sum())
    tail = f", {len(Coded.of(pictures.groups).present())} groups" if pictures.groups else ""
    tail += f", {singles} classes of one picture" if singles else ""
    return f"{name}: {len(pictures)} pictures of {len(pictures.classes)} classes{tail}"
