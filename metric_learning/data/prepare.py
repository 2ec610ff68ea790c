"""Split race folders by identity into training and validation: python -m metric_learning.data.prepare --data_dir=ROOT

ROOT holds <Race>/<identity>/<picture>; --output=FOLDER gets faces.csv (path,label,group,split), which the commands take
as --data_dir=FOLDER. No picture is opened.
"""

import argparse
import csv
import hashlib
import io
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metric_learning.checks import UserError, check_range
from metric_learning.data.command import Parser, boolean, run
from metric_learning.data.samples import Sample
from metric_learning.data.sources import read_parts
from metric_learning.data.splits import allocate
from metric_learning.files import atomic_write

LIST = "faces.csv"
HEADER = ("path", "label", "group", "split")
ONE_PERSON, DIFFERENT = "one_person", "different"


@dataclass(frozen=True)
class Amount:
    """How many identities validate: a share of each race (two at least), or a number in all."""

    share: float = 0.1
    identities: int | None = None

    def __post_init__(self) -> None:
        check_range("--val_share", self.share, 0, 0.9)
        if self.identities is not None:
            check_range("--val_identities", self.identities, 0)

    def of(self, sizes: Sequence[int]) -> list[int]:
        """Identities of each race -> identities of each race that validate."""
        if self.identities is None:
            return [self._of_race(size) if self.share else 0 for size in sizes]
        if self.identities > sum(sizes) - 2:
            raise UserError(f"--val_identities={self.identities} leaves fewer than 2 of {sum(sizes)} to train on.")
        return allocate(sizes, self.identities) if self.identities else [0] * len(sizes)

    def _of_race(self, size: int) -> int:
        # Two at least, where two are left: with one person there is no impostor pair to measure the race by.
        return max(min(size - 1, int(self.share * size + 0.5)), min(2, size // 2))


@dataclass(frozen=True, eq=False)
class Prepared:
    """The pictures with the part of each, N and N, and lines to show the user."""

    samples: list[Sample]
    parts: list[str]
    notes: list[str]


def split_identities(
    samples: Sequence[Sample],
    amount: Amount,
    *,
    seed: int = 0,
    min_pictures: int = 1,
    same_names: str = ONE_PERSON,
) -> Prepared:
    """Split pictures of label <Race>/<identity> into "train" and "val" by identity, race by race.

    The identities of a race are ranked by a hash of (seed, label), so the choice does not depend on the order of files,
    and those with one picture validate last: they have no genuine pair. Identities with fewer than min_pictures
    are left out. One name under several races is "one_person", whose pictures all train, or "different" people.
    UserError where a race has too few identities for that.
    """
    notes: list[str] = []
    counts = Counter(sample.label for sample in samples)
    kept = {label: count for label, count in counts.items() if count >= min_pictures}
    if len(kept) < len(counts):
        lost = sum(counts.values()) - sum(kept.values())
        notes.append(
            f"left out: {len(counts) - len(kept):,} identities, {lost:,} pictures (--min_pictures={min_pictures})"
        )
    if len(kept) < 2:
        raise UserError(
            f"{len(kept)} identities have {min_pictures} pictures or more; at least 2 are needed. Lower --min_pictures."
        )
    shared = _shared(kept, same_names, notes)
    chosen = _choose(kept, shared if same_names == ONE_PERSON else set(), amount, seed)
    samples = [sample for sample in samples if sample.label in kept]
    return Prepared(samples, ["val" if sample.label in chosen else "train" for sample in samples], notes)


def _shared(labels: dict[str, int], same_names: str, notes: list[str]) -> set[str]:
    """The labels whose identity has the same name under another race, with a note."""
    names = Counter(label.split("/", 1)[1] for label in labels)
    shared = sorted(label for label in labels if names[label.split("/", 1)[1]] > 1)
    if shared:
        people = len({label.split("/", 1)[1] for label in shared})
        taken = "one person each, all to train" if same_names == ONE_PERSON else "different people"
        notes.append(
            f"WARNING: {people:,} identities are under more than one race ({', '.join(shared[:4])}"
            f"{', ...' if len(shared) > 4 else ''}); taken for {taken} (--same_names). Each folder stays a class."
        )
    return set(shared)


def _choose(counts: dict[str, int], held: set[str], amount: Amount, seed: int) -> set[str]:
    """The labels that validate; those in `held` never do."""
    races: dict[str, list[str]] = {}
    for label in sorted(counts, key=lambda label: (counts[label] == 1, _rank(seed, label), label)):
        races.setdefault(label.split("/", 1)[0], []).append(label)
    names = sorted(races)
    chosen: set[str] = set()
    for name, wanted in zip(names, amount.of([len(races[name]) for name in names]), strict=True):
        free = [label for label in races[name] if label not in held]
        if wanted > len(free):
            raise UserError(
                f"{name} should give {wanted} identities to validate, but only {len(free)} of its {len(races[name])} "
                f"have names that no other race has; if they are numbers, give --same_names={DIFFERENT}."
            )
        chosen.update(free[:wanted])
    return chosen


def _rank(seed: int, label: str) -> bytes:
    return hashlib.blake2b(f"{seed}/prepare/{label}".encode(errors="surrogateescape"), digest_size=8).digest()


# ---- telling


def table(prepared: Prepared) -> str:
    """Race by (identities, pictures) by (train, val), and the sums."""
    cells: dict[tuple[str, str], Counter[str]] = {}
    for sample, part in zip(prepared.samples, prepared.parts, strict=True):
        cells.setdefault((sample.group, part), Counter())[sample.label] += 1
    races = sorted({race for race, _ in cells})
    rows: list[tuple[str, ...]] = [("", "train identities", "pictures", "val identities", "pictures")]
    numbers = []
    for race in races:
        found = [cells.get((race, part), Counter()) for part in ("train", "val")]
        numbers.append([number for cell in found for number in (len(cell), cell.total())])
        rows.append((race, *(f"{number:,}" for number in numbers[-1])))
    rows.append(("all", *(f"{sum(column):,}" for column in zip(*numbers, strict=True))))
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


# ---- writing


def write_list(prepared: Prepared, root: Path, folder: Path) -> None:
    """Write the list atomically. Paths count from `folder` where the pictures lie below it; else they are absolute."""
    target, place = folder / LIST, Path(os.path.realpath(root))
    below = place.is_relative_to(os.path.realpath(folder))
    prefix = os.path.relpath(place, os.path.realpath(folder)) if below else str(place)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADER)
    for sample, part in zip(prepared.samples, prepared.parts, strict=True):
        path = os.path.normpath(os.path.join(prefix, os.path.relpath(sample.path, root)))
        writer.writerow((_storable(path), _storable(sample.label), _storable(sample.group), part))
    atomic_write(target, buffer.getvalue())


def _storable(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name!a} is not UTF-8, which a csv must be; rename it.") from None
    if name != name.strip() or "\n" in name or "\r" in name:
        raise UserError(f"{name!a} can't stand in a csv with the spaces at its ends or its line breaks; rename it.")
    return name


def _check_output(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output={folder} is a file; name a folder.")
    if (folder / LIST).exists() and not overwrite:
        raise UserError(f"{folder / LIST} is there already; give another --output, or --overwrite=True.")
    others = [path.name for path in folder.glob("*.csv") if path.name != LIST] if folder.is_dir() else []
    if others:
        raise UserError(f"--output={folder} holds {others[0]}: of two lists none would be recognised; give another.")


# ---- the command line


def prepare(options: argparse.Namespace) -> None:
    root, folder = Path(options.data_dir), Path(options.output)
    _check_output(folder, options.overwrite)
    amount = Amount(options.val_share if options.val_share is not None else 0.1, options.val_identities)
    if options.val_share is not None and options.val_identities is not None:
        raise UserError("--val_share and --val_identities say the same thing twice; give one of them.")
    check_range("--min_pictures", options.min_pictures, 1)
    samples = read_parts(root, "groups")["all"]
    prepared = split_identities(
        samples, amount, seed=options.seed, min_pictures=options.min_pictures, same_names=options.same_names
    )
    write_list(prepared, root, folder)
    print(*prepared.notes, table(prepared), sep="\n")
    print(f"{folder / LIST} is written. To train on it: --data_dir={folder} --test_classes=0; then eval --split=val.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser("prepare", "Split race folders by identity into training and validation, and write the list.")
    add = parser.add_argument
    add("--data_dir", required=True, help="the folder with <Race>/<identity>/<picture>")
    add("--output", required=True, help=f"the folder that gets {LIST}")
    add("--val_share", type=float, help="share of each race's identities that validate [0.1]")
    add("--val_identities", type=int, help="or how many in all, each race giving its part")
    add("--seed", type=int, default=0, help="which ones [0]")
    add("--min_pictures", type=int, default=1, help="identities with fewer are left out [1]")
    add("--same_names", choices=(ONE_PERSON, DIFFERENT), default=ONE_PERSON, help="what an identity under two races is")
    add("--overwrite", type=boolean, default=False, help="replace the list that is there [False]")
    return run(parser, prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
