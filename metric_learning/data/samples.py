"""Pictures with their labels and groups as tables that a hundred million of them fit into; see names.py."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from metric_learning.data.names import Coded, Coder, Compact, NamePacker, Rows, blocks, joined, taken


class Sample(NamedTuple):
    """One picture: where it lies, the name of its class, and the group it belongs to ('' where there are no groups)."""

    path: str
    label: str
    group: str = ""


class Samples(Compact[Sample]):
    """N samples by columns: paths, labels and groups, N each."""

    def __init__(self, paths: Sequence[str], labels: Coded, groups: Coded) -> None:
        self.paths, self.labels, self.groups = paths, labels, groups

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> "Samples":
        """Any samples, in their order."""
        if isinstance(samples, Samples):
            return samples
        packer = SamplePacker()
        for block in blocks(samples):
            packer.add(*zip(*block, strict=True))
        return packer.packed()

    @classmethod
    def join(cls, parts: Sequence["Samples"]) -> "Samples":
        """All samples of the parts, one part after the other; labels of the same name are one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            joined([part.paths for part in parts]),
            Coded.join([part.labels for part in parts]),
            Coded.join([part.groups for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def _item(self, index: int) -> Sample:
        return Sample(self.paths[index], self.labels[index], self.groups[index])

    def take(self, rows: Rows) -> "Samples":
        return Samples(taken(self.paths, rows), self.labels.take(rows), self.groups.take(rows))


Parts = dict[str, Samples]


class SamplePacker:
    """Packs samples as they come, a column of each block at a time; paths are joined with `folder`."""

    def __init__(self, folder: str = "") -> None:
        self._paths, self._labels, self._groups = NamePacker(folder), Coder(), Coder()

    def add(self, paths: Sequence[str], labels: Sequence[str], groups: Sequence[str] | None = None) -> None:
        self._paths.add(paths)
        self._labels.add(labels)
        self._groups.add(groups or [""] * len(paths))

    def packed(self) -> Samples:
        return Samples(self._paths.packed(), self._labels.coded(), self._groups.coded())
