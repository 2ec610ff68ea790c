"""What an option is, and the options that all four commands share."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from metric_learning.checks import UserError, check_choice, check_range
from metric_learning.config.names import DATASETS, PRECISIONS

COUNT = 10**9  # nothing that is counted is more; a slip of the finger is
SEED = 2**31 - 1  # what all generators take

RESUMABLE = "may change when a run is resumed"


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    resumable: bool = False,
    retired: str = "",
    also: tuple[str, ...] = (),
) -> Any:
    """A field that is an option: its default, its help, what it may be, whether a resumed run may change it, and other
    names that it may be typed by."""
    known = {"help": help, "choices": choices, RESUMABLE: resumable, "retired": retired, "also": also}
    return field(default=default, metadata=known)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all four commands share. `typed` holds the names that were given on the command line."""

    data_dir: str | None = option(None, "folder (or csv file) with the pictures; none: the embedded demo faces")
    dataset: str | None = option(None, "how the data lies; by default it is recognised", choices=DATASETS)
    train_list: str | None = option(None, "list of the training pictures, where it is not the usual one")
    test_list: str | None = option(None, "list of the test pictures, where it is not the usual one")
    test_classes: float | None = option(None, "classes kept for the test: a count, or a share below 1 [0.2]")
    val_classes: float | None = option(
        None, "training classes kept to choose the best weights by: count or share [0.1]"
    )
    split_seed: int = option(0, "which classes are kept; stays the same while --seed varies")
    group_column: str | None = option(None, "column of a csv that names the groups [group, else race]")
    skip_missing: bool = option(False, "leave out rows of a csv whose id has no picture, instead of stopping")
    max_bad_pictures: float = option(0.01, "share of unreadable pictures above which a run stops", resumable=True)
    num_workers: int = option(2, "threads that read pictures; 0: in the main one", resumable=True)
    threads: int = option(0, "CPU threads that compute; 0: all cores", resumable=True)
    use_gpu: bool = option(True, "use a GPU if there is one", resumable=True)
    model_save_dir: str = option("output", "where runs are kept", resumable=True)
    precision: str = option("auto", "what embeddings are computed in on a CPU", choices=PRECISIONS, resumable=True)

    typed: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    command: ClassVar[str] = ""
    purpose: ClassVar[str] = ""
    demo: ClassVar[dict[str, Any]] = {}  # defaults where no data is given

    def validate(self) -> None:
        """Raise a UserError for the first option that can't be."""
        for item in options(type(self)):
            value = getattr(self, item.name)
            if item.metadata["choices"] and value is not None:
                check_choice(f"--{item.name}", value, item.metadata["choices"])
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"--{item.name} must be a finite number; got {value}.")
            if value == "" and item.default != "" and item.name != "lr_steps":
                raise UserError(f"--{item.name} is empty. Give it a value or leave it out.")
        for name in ("test_classes", "val_classes"):
            if getattr(self, name) is not None:
                check_range(f"--{name}", getattr(self, name), 0)
        check_range("--max_bad_pictures", self.max_bad_pictures, 0, 1)
        check_range("--num_workers", self.num_workers, 0, 256)
        check_range("--threads", self.threads, 0, 1024)
        check_range("--split_seed", self.split_seed, 0, SEED)

    def demo_recipe(self) -> dict[str, Any]:
        """What replaces the defaults of these options where no data is given."""
        return self.demo

    def with_defaults(self, **values: Any) -> Self:
        """The same with other defaults: an option that was typed keeps its value."""
        known = {item.name for item in options(type(self))}
        return dataclasses.replace(self, **{k: v for k, v in values.items() if k in known and k not in self.typed})

    def to_dict(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in options(type(self))}


def options(kind: type[Options]) -> list["dataclasses.Field[Any]"]:
    """The fields of a command that are options."""
    return [item for item in dataclasses.fields(kind) if "help" in item.metadata]
