"""The options of train_pair."""

from dataclasses import dataclass
from typing import Any, ClassVar

from metric_learning.checks import UserError, check_range
from metric_learning.config.base import COUNT, option
from metric_learning.config.names import MININGS, PAIR_LOSSES
from metric_learning.config.recipes import DEMO, TRIPLETS
from metric_learning.config.training import TrainOptions
from metric_learning.config.values import ks_of

# What each loss is told: its setting, and the option that says it. Tests hold the settings equal to what losses take.
LOSS_SETTINGS: dict[str, dict[str, str]] = {
    "triplet": {"margin": "margin", "mining": "mining", "soft_margin": "soft_margin"},
    "quadruplet": {"margin": "margin"},
    "quadruplet_full": {"margin": "margin", "second_margin": "margin2", "mining": "mining"},
    "eml": {},
    "npairs": {"reg_lambda": "npairs_reg_lambda"},
    "contrastive": {"pos_margin": "pos_margin", "neg_margin": "neg_margin"},
    "multi_similarity": {"alpha": "ms_alpha", "beta": "ms_beta", "base": "ms_base", "epsilon": "ms_epsilon"},
    "circle": {"margin": "circle_margin", "gamma": "circle_gamma"},
    "supcon": {"temperature": "temperature"},
    "recall_at_k": {"ks": "recall_ks", "tau1": "recall_tau1", "tau2": "recall_tau2"},
}
_SAID = ("margin", "npairs_reg_lambda")  # PaddleCV's: without a use they are said to have none, the others refused


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
        "memory_start": 20,
    }
    purpose: ClassVar[str] = "Stage two: fine-tune an embedding with a loss over pairs of pictures."

    train_batch_size: int = option(120, "pictures a step")
    lr: float = option(0.0001, "learning rate")
    lr_steps: str = option("100000", "steps at which piecewise_decay divides the rate by 10")
    total_iter_num: int = option(100000, "steps of the run", resumable=True)
    test_iter_step: int = option(5000, "steps between two evaluations on the validation classes", resumable=True)
    save_iter_step: int = option(5000, "steps between two checkpoints", resumable=True)
    class_dim: int | None = option(None, "no effect", retired="pictures are compared with each other, not with classes")
    loss_name: str = option("triplet", "loss", choices=PAIR_LOSSES)
    samples_each_class: int = option(2, "pictures of each class in a batch")
    margin: float = option(0.1, "margin of triplet and quadruplet, in squared distances")
    margin2: float = option(0.05, "quadruplet_full: margin of the second term")
    mining: str | None = option(
        None, "which triplets or quadruplets of a batch count [triplet: given]", choices=MININGS
    )
    soft_margin: bool = option(False, "triplet: softplus instead of a hinge")
    npairs_reg_lambda: float = option(0.01, "npairs: weight of the embeddings' length")
    pos_margin: float = option(0.0, "contrastive: distance below which a positive is near enough")
    neg_margin: float = option(0.5, "contrastive: distance above which a negative is far enough")
    ms_alpha: float = option(2.0, "multi_similarity: steepness for positives")
    ms_beta: float = option(50.0, "multi_similarity: steepness for negatives")
    ms_base: float = option(0.5, "multi_similarity: cosine that parts near from far")
    ms_epsilon: float = option(0.1, "multi_similarity: slack of its mining, in cosine; above 2: every pair counts")
    circle_margin: float = option(0.4, "circle: margin m, in cosine")
    circle_gamma: float = option(80.0, "circle: scale gamma")
    temperature: float = option(0.1, "supcon: temperature")
    recall_ks: str = option("1,2,4,8,16", "recall_at_k: the k that count")
    recall_tau1: float = option(1.0, "recall_at_k: temperature of the cut at k, in ranks")
    recall_tau2: float = option(0.01, "recall_at_k: temperature of the ranks, in cosine")
    memory_size: int = option(0, "past embeddings that a batch is compared with as well; 0: none")
    memory_start: int = option(1000, "memory_size: steps before the memory begins to fill")

    def validate(self) -> None:
        super().validate()
        check_range("--samples_each_class", self.samples_each_class, 2, 10**6)
        for name in ("margin", "margin2", "npairs_reg_lambda", "pos_margin", "neg_margin", "ms_epsilon"):
            check_range(f"--{name}", getattr(self, name), 0)
        for name in ("ms_alpha", "ms_beta", "circle_gamma", "temperature", "recall_tau1", "recall_tau2"):
            check_range(f"--{name}", getattr(self, name), above=0)
        check_range("--ms_base", self.ms_base, 0, 1)
        check_range("--circle_margin", self.circle_margin, 0, 1)
        ks_of(self.recall_ks)
        self._check_memory()
        self._check_senseless()
        if self.loss_name == "quadruplet_full" and self.mining not in (None, "given", "batch_hard"):
            raise UserError(f"--mining with quadruplet_full must be given or batch_hard; got {self.mining!r}.")
        if self.balance != "none" and self.rows_given:
            raise UserError(
                f"--balance={self.balance} needs batches of classes, not ready-made {self.loss_name}s: choose a "
                "--mining other than given, or another --loss_name."
            )
        if self.occlusion == "adversarial":
            raise UserError("--occlusion=adversarial needs a loss of each picture, as train_elem.py has. Take random.")

    def _check_senseless(self) -> None:
        for option_name in sorted(self.typed - set(_SAID) - set(LOSS_SETTINGS[self.loss_name].values())):
            losses = [name for name, settings in LOSS_SETTINGS.items() if option_name in settings.values()]
            if losses:
                raise UserError(
                    f"--{option_name} has no meaning with --loss_name={self.loss_name}; it is for {', '.join(losses)}."
                )

    def _check_memory(self) -> None:
        check_range("--memory_size", self.memory_size, 0, 10**7)
        check_range("--memory_start", self.memory_start, 0, COUNT)
        if not self.memory_size:
            if "memory_start" in self.typed:
                raise UserError("--memory_start has no meaning without --memory_size.")
            return
        if self.rows_given:
            raise UserError(
                f"--memory_size needs pairs by label, not ready-made {self.loss_name}s: choose a --mining other than "
                "given, or another --loss_name."
            )

    def check_length(self) -> None:
        if not self.memory_size or self.memory_start + 1 < self.total_iter_num:
            return  # the first batch behind the start only fills it
        steps = f"--total_iter_num={self.total_iter_num}"
        if self.epochs is not None:
            steps = f"the {self.total_iter_num} of --epochs={self.epochs:g}"
        raise UserError(
            f"--memory_start={self.memory_start} leaves no step of {steps} that would use the memory. Lower it, or "
            "leave --memory_size out."
        )

    def demo_recipe(self) -> dict[str, Any]:
        triplets = self.rows_given and self.loss_name == "triplet"
        return {**self.demo, "train_batch_size": TRIPLETS} if triplets else self.demo

    def loss_settings(self) -> dict[str, Any]:
        """What the loss is told."""
        told = {name: getattr(self, said) for name, said in LOSS_SETTINGS[self.loss_name].items()}
        return told | ({"ks": ks_of(self.recall_ks)} if "ks" in told else {})

    def unused(self) -> list[str]:
        """Options that were typed and that this loss does not look at."""
        unused = self.typed & set(_SAID) - set(LOSS_SETTINGS[self.loss_name].values())
        return sorted(unused | (self.typed & {"samples_each_class"} if self.rows_given else set()))

    @property
    def rows_given(self) -> bool:
        """Whether batches are ready-made triplets or quadruplets in rows, as PaddleCV feeds them, instead of P x K."""
        return self.mining == "given" or (self.loss_name == "triplet" and self.mining is None)
