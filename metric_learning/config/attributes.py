"""What stage one has on top for attributes, classes that are the same in training and test: --task=classify."""

from dataclasses import dataclass

from metric_learning.checks import UserError, check_range
from metric_learning.config.base import option
from metric_learning.config.names import TASKS
from metric_learning.config.training import TrainOptions


@dataclass(frozen=True, kw_only=True)
class AttributeOptions(TrainOptions):
    """What may be said with --task=classify alone, beside the task itself."""

    task: str = option(
        "embed",
        "embed: classes are identities or products, and the test has others; classify: they are an attribute such as "
        "the gender, the same in training and test",
        choices=TASKS,
    )
    val_share: float = option(0.2, "classify: share of each class that is kept to choose the best weights by")
    test_share: float | None = option(
        None, "classify: share of each class that is kept for the test [0.2 where the data names no test pictures]"
    )
    folds: int = option(
        0, "classify: cross-validation by so many parts, each kept once to choose by; all of them without --fold"
    )
    fold: int | None = option(None, "folds: train on all but this one, 1..folds, only")
    fold_series: str | None = option(None, "which command a run of all folds is of; the runs note it themselves")

    def validate(self) -> None:
        super().validate()
        check_range("--val_share", self.val_share, 0, 0.9)
        if self.test_share is not None:
            check_range("--test_share", self.test_share, 0, 0.9)
        if self.folds:
            check_range("--folds", self.folds, 2, 1000)
        if "fold_series" in self.typed:
            raise UserError("--fold_series is noted by the runs themselves.")
        if self.fold is not None:
            if not self.folds:
                raise UserError("--fold has no meaning without --folds.")
            check_range("--fold", self.fold, 1, self.folds)
        self._check_task()

    def _check_task(self) -> None:
        if self.task == "classify" and self.generations > 1:
            raise UserError("--generations has no meaning with --task=classify.")
        if self.checkpoint is not None:  # the run itself says which task it is
            return
        without = {
            "embed": ("val_share", "test_share", "folds", "fold"),
            "classify": ("test_classes", "val_classes", "group_means", "group_margins", "generations"),
        }
        for name in without[self.task]:
            if name in self.typed:
                raise UserError(f"--{name} has no meaning with --task={self.task}.")
        if self.folds and "val_share" in self.typed:
            raise UserError("--val_share has no meaning with --folds: each fold is kept once. Type one of them.")
