"""Where pictures and their labels come from. Every source yields Sample(path, label, group); SOURCES lists them all.

A source is a function: the data folder (or csv file) -> {part: samples}, where part is "all" when the data does not say
what is for training and what for testing, and "train", "val", "test" when it does.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError, check_choice
from metric_learning.data.lists import PLAIN, CsvRules, read_csv, read_sop_list
from metric_learning.data.names import Coded, blocks
from metric_learning.data.record_lists import TRAIN, read_recordio
from metric_learning.data.samples import Parts as Parts
from metric_learning.data.samples import Sample as Sample
from metric_learning.data.samples import SamplePacker, Samples
from metric_learning.data.walk import check_folder, is_folder, pictures_below, visible

SOP_LISTS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}

# Top-level folders with these names (case, '_' and '-' aside) are groups of people, not classes; see docs/data.md.
_ANCESTRY = (
    "african",
    "asian",
    "caucasian",
    "indian",
    "black",
    "white",
    "latin",
    "latino",
    "hispanic",
    "latino hispanic",
)
_REGION = ("east asian", "south asian", "southeast asian", "middle eastern", "pacific islander")
_AMERICAN = ("african american", "american indian", "native american")
_SEX = ("male", "female", "man", "woman", "men", "women")
GROUP_NAMES = frozenset(_ANCESTRY + _REGION + _AMERICAN + _SEX)


@dataclass(frozen=True, eq=False)
class PictureSet:
    """N pictures of C classes: paths (N), labels (N,) int64 in 0..C-1, classes: the C names, groups: N names or [].

    As the sources make it, paths and groups are compact (names.py): a path becomes a Python object when it is asked
    for. Any other sequences do as well.
    """

    paths: Sequence[str]
    labels: NDArray[np.int64]
    classes: list[str]
    groups: Sequence[str]

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> "PictureSet":
        """Keep the order of the samples; number the classes in the sorted order of their names."""
        samples = Samples.of(samples)
        labels, groups = samples.labels.sorted(), samples.groups.sorted()
        return cls(
            paths=samples.paths,
            labels=labels.codes.astype(np.int64),
            classes=labels.names,
            groups=groups if any(groups.names) else [],
        )

    def samples(self) -> Samples:
        """The same as a table of samples."""
        groups = Coded.of(self.groups) if self.groups else Coded(np.zeros(len(self), np.uint8), [""])
        return Samples(self.paths, Coded(self.labels, self.classes), groups)

    def __len__(self) -> int:
        return len(self.paths)

    def class_counts(self) -> NDArray[np.int64]:
        """Pictures of each class, (C,) int64."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)

    def class_indices(self) -> "ClassIndices":
        """[label] -> the indices of the class's pictures, ascending."""
        return ClassIndices(self.labels)


class ClassIndices:
    """The pictures of each of C classes: [label] -> their indices (n,) int64, ascending; C is the highest label + 1.

    Two arrays, whatever the number of classes: the indices by class, and where each class begins in them. UserError for
    labels that are not a row of integers from 0 on.
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or (len(labels) and labels.min() < 0):
            raise UserError(
                f"labels must be integers from 0 on, one a picture; got {labels.dtype} of shape {labels.shape}. "
                "Number the classes, as by numpy.unique(names, return_inverse=True)[1]."
            )
        self.sizes = np.bincount(labels)
        self._ends = np.cumsum(self.sizes)
        order = np.argsort(labels, kind="stable")
        self._order = order.astype(np.int32) if len(order) < 1 << 31 else order

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, label: int) -> NDArray[np.int64]:
        stop = self._ends[label]
        return self._order[stop - self.sizes[label] : stop].astype(np.int64)


def recognise(data_dir: str | Path) -> str:
    """The name in SOURCES of the layout at `data_dir`; tried are SOP lists, RecordIO, csv, race folders, folders."""
    root = Path(data_dir)
    if root.is_file():
        if _is_csv(root.name):
            return "csv"
        if root.suffix.lower() == ".rec":
            return "recordio"
        raise UserError(f"{root} is neither a .csv nor a .rec file; --data_dir takes one of them or a folder.")
    check_folder(root)
    entries = visible(root)
    names = [entry.name for entry in entries]
    if any(name in SOP_LISTS.values() for name in names):
        return "sop"
    if TRAIN in names:
        return "recordio"
    if any(_is_list(entry) for entry in entries):
        return "csv"
    folders = [entry for entry in entries if is_folder(entry)]
    # male/*.jpg and female/*.jpg are two classes: only names with folders below them are groups.
    nested = any(is_folder(inner) for folder in folders for inner in visible(folder.path))
    return "groups" if nested and all(_is_group_name(folder.name) for folder in folders) else "folders"


def read_parts(data_dir: str | Path, kind: str, rules: CsvRules = PLAIN) -> Parts:
    """Read the data at `data_dir` as `kind` (a name in SOURCES); a UserError where there is none or it is malformed."""
    check_choice("--dataset", kind, SOURCES)
    found = _read_csv_folder(Path(data_dir), rules) if kind == "csv" else SOURCES[kind](Path(data_dir))
    return {name: Samples.of(samples) for name, samples in found.items()}


# ---- Stanford Online Products' lists


def _read_sop(root: Path) -> Parts:
    check_folder(root)
    found = {part: root / name for part, name in SOP_LISTS.items() if (root / name).is_file()}
    if "train" not in found:
        raise UserError(
            f"{root} has no {SOP_LISTS['train']}; the layout 'sop' needs it (or name it with --train_list)."
        )
    return {part: read_sop_list(path) for part, path in found.items()}


# ---- folders


def _read_folders(root: Path) -> Parts:
    packer = SamplePacker(str(root))
    for block in blocks(pictures_below(root)):
        inside = [names for names in block if len(names) > 1]
        packer.add([os.path.join(*names) for names in inside], ["/".join(names[:-1]) for names in inside])
    samples = packer.packed()
    if not len(samples):
        raise UserError(f"{root} holds pictures but no class folders; the rule is one folder of pictures a class.")
    return {"all": samples}


def _read_groups(root: Path) -> Parts:
    packer = SamplePacker(str(root))
    for block in blocks(names for names in pictures_below(root) if len(names) > 1):
        for names in block:
            if len(names) == 2:
                path = os.path.join(root, *names)
                raise UserError(f"{path} lies in no identity folder; race folders are <Group>/<identity>/<picture>.")
        paths = [os.path.join(*names) for names in block]
        packer.add(paths, ["/".join(names[:2]) for names in block], [names[0] for names in block])
    samples = packer.packed()
    if not len(samples):
        raise UserError(f"{root} has no <Group>/<identity>/<picture> folders; --dataset=groups takes a folder a class.")
    return {"all": samples}


def _is_group_name(name: str) -> bool:
    return name.lower().replace("_", " ").replace("-", " ") in GROUP_NAMES


# ---- csv


def _read_csv_folder(root: Path, rules: CsvRules = PLAIN) -> Parts:
    if root.is_file():
        return read_csv(root, rules)
    check_folder(root)
    names = sorted(entry.name for entry in visible(root) if _is_list(entry))
    if len(names) != 1:
        what = f"several csv files ({', '.join(names[:5])})" if names else "no csv file"
        raise UserError(f"{root} holds {what}; name the one to read with --train_list, or choose another --dataset.")
    return read_csv(root / names[0], rules)


def _is_csv(name: str) -> bool:
    return name.lower().endswith(".csv") and not name.startswith(".")


def _is_list(entry: os.DirEntry[str]) -> bool:
    """A csv file, or a link to one; from a pipe of that name nothing would ever come."""
    return _is_csv(entry.name) and os.path.isfile(entry.path)


SOURCES: dict[str, Callable[[Path], Mapping[str, Iterable[Sample]]]] = {
    "sop": _read_sop,
    "folders": _read_folders,
    "groups": _read_groups,
    "csv": _read_csv_folder,
    "recordio": read_recordio,
}
