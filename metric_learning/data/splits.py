"""Which pictures train, which choose the model (val), and which give the figure (test): classes that do not overlap.

Classes are chosen by a hash of (seed, purpose, class name): the choice is the same for every file order, operating
system and NumPy version, and a class added later does not reshuffle the rest.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metric_learning.checks import UserError, check_range
from metric_learning.data.lists import Parts, Sample, read_list
from metric_learning.data.sources import SOP_LISTS, PictureSet, read_parts, recognise
from metric_learning.data.walk import check_folder

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
) -> Splits:
    """Read the data and split it by class.

    `test_classes` is taken from all classes and `val_classes` from those left to train: None is the default (0.2 and
    0.1), a number below 1 a share, from 1 on a count, 0 none. Data that names its own test (val) pictures keeps them;
    then only None and 0 make sense. Raises UserError where anything is missing, malformed or cannot be split so.
    """
    check_amount("--test_classes", test_classes)
    check_amount("--val_classes", val_classes)
    kind, parts = _read(Path(data_dir), dataset, train_list, test_list)
    notes = [f"data: {data_dir} read as {kind!r} (--dataset changes that)"]
    if kind == "sop" and "test" not in parts and test_classes is None:
        wanted = SOP_LISTS["test"]
        raise UserError(
            f"{data_dir} has no {wanted}; add it, or set --test_classes to take classes from the training list."
        )
    train = parts.get("all", []) + parts.get("train", [])
    if len({sample.label for sample in train}) < 2:
        raise UserError(f"{data_dir} has fewer than 2 classes to train on; metric learning needs at least 2.")
    train, test = _part(train, parts, "test", test_classes, seed, notes)
    train, val = _part(train, parts, "val", val_classes, seed, notes)
    notes += _overlaps(train, val, test)
    sets = {"train": PictureSet.of(train), "val": PictureSet.of(val), "test": PictureSet.of(test)}
    notes += [_describe(name, pictures) for name, pictures in sets.items()]
    return Splits(**sets, kind=kind, notes=notes)


def check_amount(what: str, value: float | None) -> None:
    """None, 0, a share between 0 and 1, or a whole number from 1 on; anything else is a UserError."""
    if value is None:
        return
    check_range(what, value, 0)
    if value > 1 and value != int(value):
        raise UserError(f"{what} must be a share below 1 or a whole number of classes; got {value}.")


# ---- reading


def _read(
    data_dir: Path, dataset: str | None, train_list: str | Path | None, test_list: str | Path | None
) -> tuple[str, Parts]:
    if train_list is None and test_list is None:
        kind = dataset or recognise(data_dir)
        return kind, read_parts(data_dir, kind)
    check_folder(data_dir)
    kind, parts = read_list(_find_list(train_list or _default_list(data_dir), data_dir), data_dir)
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
        test_kind, test_parts = read_list(_find_list(test_list, data_dir), data_dir)
        if test_kind != kind:
            raise UserError(
                f"--test_list={test_list} is a {test_kind} list but the training list is {kind}; use one kind."
            )
        parts["test"] = [sample for samples in test_parts.values() for sample in samples]
    return kind, parts


def _default_list(data_dir: Path) -> Path:
    if not (data_dir / SOP_LISTS["train"]).is_file():
        raise UserError("--test_list needs --train_list as well.")
    return data_dir / SOP_LISTS["train"]


def _find_list(name: str | Path, data_dir: Path) -> Path:
    for path in (Path(name), data_dir / name):
        if path.is_file():
            return path
    raise UserError(f"{name} is neither a file nor one in {data_dir}; check --train_list and --test_list.")


# ---- choosing


def _part(
    train: list[Sample], parts: Parts, name: str, amount: float | None, seed: int, notes: list[str]
) -> tuple[list[Sample], list[Sample]]:
    """Split `name` ("test" or "val") off: (what is left to train, that part). Given pictures are kept as they are."""
    flag = f"--{name}_classes"
    if amount == 0:
        return train, []
    if name in parts:
        if amount is not None:
            raise UserError(
                f"{flag}={amount:g}: the data names its own {name} pictures; drop the flag, or give 0 for none."
            )
        return train, parts[name]
    counts = Counter(sample.label for sample in train)
    count = _class_count(name, amount, counts, notes)
    chosen = set(_choose(train, counts, name, count, seed))
    if chosen:
        notes.append(f"{name}: {len(chosen)} of {len(counts)} classes, chosen by seed {seed} ({flag})")
    rest = [sample for sample in train if sample.label not in chosen]
    return rest, [sample for sample in train if sample.label in chosen]


def _class_count(name: str, amount: float | None, counts: Counter[str], notes: list[str]) -> int:
    """How many classes to split off; 0, with a note, where the default finds too few."""
    total = len(counts)
    if amount is None:
        least, share = DEFAULTS[name]
        paired = sum(count > 1 for count in counts.values())
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


def _choose(train: list[Sample], counts: Counter[str], name: str, count: int, seed: int) -> list[str]:
    ranked = sorted(counts, key=lambda label: (_rank(seed, name, label), label))
    group_of = {sample.label: sample.group for sample in reversed(train)}
    if name == "test":
        return _by_group(ranked, group_of, count)
    # A query without a positive says nothing, so val takes classes of one picture last.
    paired = [label for label in ranked if counts[label] > 1]
    singles = [label for label in ranked if counts[label] == 1]
    return _by_group(paired, group_of, min(count, len(paired))) + singles[: max(0, count - len(paired))]


def _by_group(ranked: list[str], group_of: dict[str, str], count: int) -> list[str]:
    """The first `count` of the ranked classes, each group giving its share."""
    strata: dict[str, list[str]] = {}
    for label in ranked:
        strata.setdefault(group_of[label], []).append(label)
    names = sorted(strata)
    shares = allocate([len(strata[group]) for group in names], count)
    return [label for group, share in zip(names, shares, strict=True) for label in strata[group][:share]]


def allocate(sizes: Sequence[int], count: int) -> list[int]:
    """Share `count` out in proportion to `sizes` by largest remainder (ties: first); each share is at most its size."""
    total = sum(sizes)
    shares = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda k: (-(sizes[k] * count % total), k))
    for k in by_remainder[: count - sum(shares)]:
        shares[k] += 1
    return shares


def _rank(seed: int, purpose: str, label: str) -> bytes:
    text = f"{seed}/{purpose}/{label}".encode(errors="surrogateescape")
    return hashlib.blake2b(text, digest_size=8).digest()


# ---- telling


def _overlaps(train: list[Sample], val: list[Sample], test: list[Sample]) -> list[str]:
    """Given lists may share classes with the training list; then their figure is not one of unseen classes."""
    known = {sample.label for sample in train}
    notes = []
    for name, samples in (("val", val), ("test", test)):
        shared = sorted({sample.label for sample in samples} & known)
        if shared:
            notes.append(
                f"WARNING: {len(shared)} classes are in both train and {name} ({', '.join(shared[:3])}...): "
                f"the {name} figure is not one of unseen classes"
            )
    return notes


def _describe(name: str, pictures: PictureSet) -> str:
    if not len(pictures):
        return f"{name}: no pictures"
    singles = int((pictures.class_counts() == 1).sum())
    tail = f", {len(set(pictures.groups))} groups" if pictures.groups else ""
    tail += f", {singles} classes of one picture" if singles else ""
    return f"{name}: {len(pictures)} pictures of {len(pictures.classes)} classes{tail}"
