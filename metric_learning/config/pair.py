"""The options of train_pair."""

from dataclasses import dataclass
from typing import Any, ClassVar

from metric_learning.checks import UserError, check_range
from metric_learning.config.base import option
from metric_learning.config.names import MININGS, PAIR_LOSSES
from metric_learning.config.training import DEMO, TrainOptions


@dataclass(frozen=True, kw_only=True)
class PairOptions(TrainOptions):
    """Stage two: pictures against each other."""

    command: ClassVar[str] = "train_pair"
    demo: ClassVar[dict[str, Any]] = {
        **DEMO,
        "train_batch_size": 64,
        "samples_each_class": 4,
        "lr": 0.001,
        "lr_strategy": "cosine_decay",
        "total_iter_num": 100,
        "test_iter_step": 20,
    }
    purpose: ClassVar[str] = "Stage two: fine-tune an embedding with a loss over pairs of pictures."

    train_batch_size: int = option(120, "pictures a step")
    lr: float = option(0.0001, "learning rate")
    lr_steps: str = option("100000", "steps at which piecewise_decay divides the rate by 10")
    total_iter_num: int = option(100000, "steps of the run", resumable=True)
    test_iter_step: int = option(5000, "steps between two evaluations on the validation classes", resumable=True)
    save_iter_step: int = option(5000, "steps between two checkpoints", resumable=True)
    loss_name: str = option("triplet", "loss", choices=PAIR_LOSSES)
    samples_each_class: int = option(2, "pictures of each class in a batch")
    margin: float = option(0.1, "margin of triplet and quadruplet, in squared distances")
    margin2: float = option(0.05, "quadruplet_full: margin of the second term")
    mining: str | None = option(
        None, "which triplets or quadruplets of a batch count [triplet: given]", choices=MININGS
    )
    soft_margin: bool = option(False, "triplet: softplus instead of a hinge")
    npairs_reg_lambda: float = option(0.01, "npairs: weight of the embeddings' length")

    def validate(self) -> None:
        super().validate()
        check_range("--samples_each_class", self.samples_each_class, 2, 10**6)
        for name in ("margin", "margin2", "npairs_reg_lambda"):
            check_range(f"--{name}", getattr(self, name), 0)
        if self.loss_name == "quadruplet_full" and self.mining not in (None, "given", "batch_hard"):
            raise UserError(f"--mining with quadruplet_full must be given or batch_hard; got {self.mining!r}.")
        if self.balance != "none" and self.rows_given:
            raise UserError(
                f"--balance={self.balance} needs batches of classes, not ready-made {self.loss_name}s: choose a "
                "--mining other than given, or another --loss_name."
            )
        if self.occlusion == "adversarial":
            raise UserError("--occlusion=adversarial needs a loss of each picture, as train_elem.py has. Take random.")
        senseless = {
            "mining": ("triplet", "quadruplet_full"),
            "soft_margin": ("triplet",),
            "margin2": ("quadruplet_full",),
        }
        for name, losses in senseless.items():
            if name in self.typed and self.loss_name not in losses:
                raise UserError(
                    f"--{name} has no meaning with --loss_name={self.loss_name}; it is for {', '.join(losses)}."
                )

    def unused(self) -> list[str]:
        """Options that were typed and that this loss does not look at."""
        looked_at = {
            "margin": self.loss_name in ("triplet", "quadruplet", "quadruplet_full"),
            "npairs_reg_lambda": self.loss_name == "npairs",
            "samples_each_class": not self.rows_given,
        }
        return sorted(name for name, used in looked_at.items() if name in self.typed and not used)

    @property
    def rows_given(self) -> bool:
        """Whether batches are ready-made triplets or quadruplets in rows, as PaddleCV feeds them, instead of P x K."""
        return self.mining == "given" or (self.loss_name == "triplet" and self.mining is None)
