"""Drawn faces with far more people in one group than in the others, as face data has them, and a fair test.

python -m metric_learning.data.skewed --root=skewed_faces

Training people in the proportions of a multi-race competition set (African 1,543, Asian 1,728, Caucasian 11,326, Indian
1,923 identities, divided by 12); validation and test have as many people of each group. No picture shows anyone.
"""

import csv
import io
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from metric_learning.checks import UserError, check_choice, check_range
from metric_learning.data.command import Parser, run
from metric_learning.data.faces.people import MOST
from metric_learning.data.synthetic import GROUPS, write_demo_faces
from metric_learning.files import atomic_write

TRAIN = {"African": 129, "Asian": 144, "Caucasian": 944, "Indian": 160}
APART = 0.5  # see write_skewed_faces
TABLE = "faces.csv"


def write_skewed_faces(
    root: str,
    train: Mapping[str, int] = TRAIN,
    val: int = 10,
    test: int = 100,
    pictures: int = 8,
    seed: int = 0,
    progress: bool = True,
    apart: float = APART,
) -> str:
    """Write the faces and `<root>/faces.csv` (path,label,group,split) unless they are there; returns `root`.

    train: people of each group to train on; val, test: people of EACH group that has any to train on, others than
    those. The first `test` people of a group are for the test, the next `val` for validation: other numbers of people
    to train on leave the test as it is. apart in 0..1: how far groups differ in what their people differ in
    (`draw_traits`); at 0 what is learnt on one group serves all, and the skew does little harm. Pictures as
    `write_demo_faces` draws them, and as atomic as those; the csv is the same to the byte for the same arguments.
    Raises UserError as that does.
    """
    check_range("--val", val, 0, MOST)
    check_range("--test", test, 0, MOST)
    for group, count in train.items():
        check_choice("A group of --train", group, GROUPS)
        check_range(f"--train of {group}", count, 0, MOST)
    people = {group: test + val + count for group, count in train.items() if count}
    write_demo_faces(root, people, pictures, seed, progress, apart)
    place, table = os.path.join(root, TABLE), _table(root, people, val, test)
    if not os.path.isfile(place) or Path(place).read_bytes() != table.encode():
        atomic_write(place, table)
    return root


def _table(root: str, people: Mapping[str, int], val: int, test: int) -> str:
    """The csv: which people are for what goes by their number in the group."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("path", "label", "group", "split"))
    for group in sorted(people):
        for number, person in enumerate(sorted(os.listdir(os.path.join(root, group)))):
            split = "test" if number < test else "val" if number < test + val else "train"
            for picture in sorted(os.listdir(os.path.join(root, group, person))):
                rows.writerow((f"{group}/{person}/{picture}", person, group, split))
    return text.getvalue()


def counts_of(text: str) -> dict[str, int]:
    """'African:26,Asian:29' -> {'African': 26, 'Asian': 29}."""
    found = {}
    for part in text.split(","):
        group, _, count = part.partition(":")
        if not (count.isascii() and count.isdigit() and len(count) < 9):
            raise UserError(f"--train must be people of each group, such as African:26,Asian:29; got {text!r}.")
        if check_choice("A group of --train", group.strip(), GROUPS) in found:
            raise UserError(f"--train names {group.strip()} twice: {text!r}.")
        found[group.strip()] = int(count)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser("skewed", "Draw faces with a skewed number of people in each group, and an equal test.")
    typical = ",".join(f"{group}:{count}" for group, count in TRAIN.items())
    parser.add_argument("--root", required=True, help="folder to write; --data_dir of the trainings")
    parser.add_argument("--train", default=typical, help="people of each group to train on (default: %(default)s)")
    parser.add_argument(
        "--val", type=int, default=10, help="people of each group for validation (default: %(default)s)"
    )
    parser.add_argument(
        "--test", type=int, default=100, help="people of each group for the test (default: %(default)s)"
    )
    parser.add_argument("--pictures", type=int, default=8, help="pictures of each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which people (default: %(default)s)")
    parser.add_argument(
        "--apart",
        type=float,
        default=APART,
        help="0..1: how far groups vary in traits of their own (default: %(default)s)",
    )
    return run(parser, _write, arguments)


def _write(options: Namespace) -> None:
    counts = (counts_of(options.train), options.val, options.test, options.pictures)
    root = write_skewed_faces(options.root, *counts, seed=options.seed, apart=options.apart)
    print(f"Written: {root}; train with --data_dir={root}, nothing about real people follows from it.")


if __name__ == "__main__":
    sys.exit(main())
