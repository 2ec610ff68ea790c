"""The options of train_elem."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from metric_learning.checks import UserError, check_range
from metric_learning.config.attributes import AttributeOptions
from metric_learning.config.base import option
from metric_learning.config.names import CENTER_STARTS, CENTERS, ELEMENT_LOSSES
from metric_learning.config.recipes import DEMO
from metric_learning.config.values import class_weights_of, group_margins_of

# The settings of each margin. Tests hold them equal to what the losses take.
MARGIN_SETTINGS: dict[str, tuple[str, ...]] = {
    "softmax": (),
    "bce": (),
    "arcmargin": ("scale", "margin", "easy_margin"),
    "amsoftmax": ("scale", "margin", "easy_margin"),
    "sphereface": ("scale", "margin", "lambda_base", "lambda_gamma", "lambda_min"),
    "magface": ("scale", "l_a", "u_a", "l_margin", "u_margin", "lambda_g", "easy_margin"),
    "curricularface": ("scale", "margin", "ema_rate"),
    "adaface": ("scale", "margin", "h", "ema_rate"),
}
PRODUCTS = ("softmax", "bce")  # losses of products, not of cosines
_ARC = ("scale", "margin", "easy_margin")  # also typed as --arc_scale and so on


@dataclass(frozen=True, kw_only=True)
class ElemOptions(AttributeOptions):
    """Stage one: one picture at a time against class centres."""

    command: ClassVar[str] = "train_elem"
    demo: ClassVar[dict[str, Any]] = {
        **DEMO,
        "train_batch_size": 64,
        "lr": 0.05,
        "lr_strategy": "cosine_decay",
        "warmup_steps": 20,
        "total_iter_num": 150,
        "test_iter_step": 50,
        "arc_scale": 16.0,
        "arc_margin": 0.1,
    }
    purpose: ClassVar[str] = "Stage one: learn an embedding with a loss over class centres."

    class_dim: int | None = option(None, "number of classes; by default it is counted")
    loss_name: str = option("softmax", "loss", choices=ELEMENT_LOSSES)
    arc_scale: float = option(80.0, "arcmargin: scale s of the cosines")
    arc_margin: float = option(0.15, "arcmargin: margin m added to the angle, in radians")
    arc_easy_margin: bool = option(False, "arcmargin: margin only where the cosine is above 0")
    scale: float | None = option(None, "scale s of the cosines, of any margin [the loss's own]")
    margin: float | None = option(None, "margin m, in the unit of the loss [the loss's own]")
    easy_margin: bool | None = option(None, "arcmargin, amsoftmax, magface: margin only where it is easy [False]")
    l_a: float | None = option(None, "magface: shortest length that counts [10]")
    u_a: float | None = option(None, "magface: longest length that counts [110]")
    l_margin: float | None = option(None, "magface: margin at the shortest length, in radians [0.45]")
    u_margin: float | None = option(None, "magface: margin at the longest length, in radians [0.8]")
    lambda_g: float | None = option(None, "magface: weight of the penalty on the length [35]")
    h: float | None = option(None, "adaface: how much the quality of a picture changes its margin [0.333]")
    ema_rate: float | None = option(None, "curricularface, adaface: rate of the moving averages [0.01]")
    lambda_base: float | None = option(None, "sphereface: lambda at the start [1000; 0 with a margin below 2]")
    lambda_gamma: float | None = option(None, "sphereface: how fast lambda falls [0.12]")
    lambda_min: float | None = option(None, "sphereface: smallest lambda [5; 0 with a margin below 2]")
    centers: str = option(
        "all",
        "which class centres take part in a step; partial: those of the batch and a random share; pool: features of a "
        "slowly moving copy of the network, of the identities seen last",
        choices=CENTERS,
    )
    partial_rate: float = option(0.1, "centers=partial: share of the classes that is drawn for each step")
    pool_size: int | None = option(
        None, "centers=pool: identities that it holds [a tenth of the classes, but all that a batch may bring]"
    )
    pool_momentum: float = option(0.99, "centers=pool: how much of itself the network's copy keeps in a step")
    identity_share: float = option(
        2 / 3, "centers=pool: share of the batch's pairs that are two pictures of one identity; the others are any two"
    )
    init_centers: str = option(
        "random",
        "means: each class centre starts at the mean of its pictures' embeddings; for a network that is trained",
        choices=CENTER_STARTS,
    )
    focal_gamma: float = option(0.0, "focal loss on top: exponent gamma; 0: plain cross-entropy")
    dropout: float = option(0.0, "share of the embedding's entries dropped before the class centres, in training")
    label_smoothing: float = option(0.0, "share of each label that is spread evenly over all classes; 0: none")
    class_weights: str | None = option(
        None, "what each class weighs: balanced (rare ones more), or weights such as female:1.5,male:1; others 1"
    )

    balance_power: float = option(
        0.0, "balance=groups: a group's share of a batch goes with its pictures to this power; 0: equal, 1: as they are"
    )
    group_margins: str | None = option(
        None, "what each group's margin has on top, such as African:0.1,Asian:0.05; auto: moved by validation"
    )
    group_margin_rate: float = option(0.2, "group_margins=auto: how far an FRR of 1 above the mean moves a margin")
    group_margin_max: float = option(0.1, "group_margins=auto: how far a margin may be moved in all")

    def validate(self) -> None:
        super().validate()
        check_range("--arc_scale", self.arc_scale, above=0)
        check_range("--arc_margin", self.arc_margin, 0, math.pi / 2)
        check_range("--focal_gamma", self.focal_gamma, 0)
        check_range("--dropout", self.dropout, 0, 0.99)
        check_range("--label_smoothing", self.label_smoothing, 0, 0.99)
        self.named_class_weights()
        if self.class_dim is not None:
            check_range("--class_dim", self.class_dim, 1, 10**8)
        if self.init_centers == "means" and self.loss_name in PRODUCTS:
            raise UserError(
                f"--init_centers=means needs a loss of cosines; {self.loss_name} has products. Take arcmargin."
            )
        self._check_centers()
        check_range("--balance_power", self.balance_power, 0, 1)
        if "balance_power" in self.typed and self.balance == "none":
            raise UserError("--balance_power has no meaning without --balance=groups.")
        self._check_margin()
        self._check_group_margins()

    def _check_centers(self) -> None:
        check_range("--partial_rate", self.partial_rate, 0, 1)
        if "partial_rate" in self.typed and self.centers != "partial" and self.checkpoint is None:
            raise UserError("--partial_rate has no meaning without --centers=partial.")
        for what, wanted in (
            ("task=classify", self.task == "classify"),
            ("init_centers=means", self.init_centers == "means"),
            ("label_smoothing", self.label_smoothing > 0),
            ("loss_name=bce", self.loss_name == "bce" and self.centers == "partial"),
        ):
            if wanted and self.centers != "all":
                raise UserError(f"--{what} needs --centers=all; got {self.centers}.")
        self._check_pool()

    def _check_pool(self) -> None:
        check_range("--pool_momentum", self.pool_momentum, 0, 1)
        check_range("--identity_share", self.identity_share, 0, 1)
        if self.pool_size is not None:
            check_range("--pool_size", self.pool_size, 1, 10**8)
        if self.centers != "pool":
            for name in ("pool_size", "pool_momentum", "identity_share"):
                if name in self.typed and self.checkpoint is None:
                    raise UserError(f"--{name} has no meaning without --centers=pool.")
            return
        if self.train_batch_size % 2:
            raise UserError(f"--train_batch_size={self.train_batch_size} must be even for the pairs of --centers=pool.")
        for what, wrong, remedy in (
            (
                f"loss_name={self.loss_name}",
                self.loss_name in PRODUCTS,
                "it needs a loss of cosines, such as arcmargin",
            ),
            ("class_weights", self.class_weights is not None, "what it holds are identities of the moment"),
            ("balance=groups", self.balance == "groups", "it has a sampler of its own"),
            ("group_margins", self.group_margins is not None, "its loss has no margin for each picture"),
            ("accumulate", self.accumulate > 1, "it needs the whole batch at once"),
            ("occlusion=adversarial", self.occlusion == "adversarial", "take random"),
        ):
            if wrong:
                raise UserError(f"--centers=pool does not go with --{what}: {remedy}.")

    def _check_margin(self) -> None:
        for name, value in self.margin_settings().items():
            if value is not None:
                check_range(f"--{name}", value, **{"above" if name in ("scale", "l_a", "u_a") else "low": 0})
        if self.loss_name == "arcmargin":
            check_range("--margin", self.margin or 0, 0, math.pi / 2)
            for name in _ARC:
                if {name, f"arc_{name}"} <= self.typed:
                    raise UserError(f"--{name} and --arc_{name} are one setting of arcmargin. Type one of them.")

    def _check_group_margins(self) -> None:
        check_range("--group_margin_rate", self.group_margin_rate, 0, 100)
        check_range("--group_margin_max", self.group_margin_max, 0, 1)
        for name in ("group_margin_rate", "group_margin_max"):
            if name in self.typed and not self.adapts_margins:
                raise UserError(f"--{name} has no meaning without --group_margins=auto.")
        self.fixed_margins()

    @property
    def balances_classes(self) -> bool:
        """Whether classes weigh by how rare they are."""
        return self.class_weights == "balanced"

    def named_class_weights(self) -> dict[str, float]:
        """What was typed for each class; empty with balanced."""
        return {} if self.class_weights is None or self.balances_classes else class_weights_of(self.class_weights)

    @property
    def adapts_margins(self) -> bool:
        """Whether the groups' margins are moved at each evaluation."""
        return self.group_margins == "auto"

    def fixed_margins(self) -> dict[str, float]:
        """What was typed for each group; empty with auto."""
        return {} if self.group_margins is None or self.adapts_margins else group_margins_of(self.group_margins)

    def margin_settings(self) -> dict[str, Any]:
        """What the margin is told, None where it keeps its own default; arcmargin falls back on --arc_*."""
        told = {name: getattr(self, name) for names in MARGIN_SETTINGS.values() for name in names}
        if self.loss_name == "arcmargin":
            told |= {name: getattr(self, f"arc_{name}") for name in _ARC if told[name] is None}
        return told

    def unused(self) -> list[str]:
        """Options that were typed and that this loss does not look at."""
        looked_at = set(MARGIN_SETTINGS[self.loss_name])
        every = {name for names in MARGIN_SETTINGS.values() for name in names}
        if self.loss_name != "arcmargin":
            every |= {f"arc_{name}" for name in _ARC}
        return sorted(self.typed & every - looked_at)
