"""What train_elem and train_pair share."""

from dataclasses import dataclass
from typing import Any

from metric_learning.checks import UserError, check_choice, check_range
from metric_learning.config.base import COUNT, SEED, Options, option
from metric_learning.config.names import (
    AMP,
    AUGMENTATIONS,
    BALANCES,
    COLOURS,
    FROZEN,
    MODELS,
    OCCLUSION_BLOCKS,
    OCCLUSION_SHAPES,
    OCCLUSIONS,
    OPTIMIZERS,
    STRATEGIES,
)
from metric_learning.config.values import check_channel_numbers, shape_of, steps_of

STRATEGY_OF = {"plateau_patience": "plateau", "plateau_factor": "plateau", "lr_steps": "piecewise_decay"}


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """What the two training stages share."""

    model: str = option("ResNet50", "backbone", choices=MODELS)
    embedding_size: int = option(0, "size of the embedding; 0: the pooled feature of the backbone itself")
    embedding_norm: bool = option(False, "batch normalisation behind the embedding layer; helps margins from scratch")
    image_shape: str = option("3,224,224", "channels,height,width that the network sees")
    color_order: str = option("RGB", "order of the channels that the network sees", choices=("RGB", "BGR"))
    image_mean: str = option("", "mean of each channel, R,G,B in 0..1 [ImageNet's]")
    image_std: str = option("", "standard deviation of each channel [ImageNet's]")
    test_crop: float = option(0.875, "share of the resized short side that the test's centre crop keeps")
    min_crop_area: float = option(
        0.08, "smallest share of the area that a random training crop keeps; 1: no random crop"
    )
    max_crop_aspect: float = option(
        4 / 3, "how much a random crop may squeeze the picture; 1: not at all, as for faces"
    )
    flip: bool = option(True, "mirror half of the training pictures")
    color_jitter: float = option(0.0, "brightness, contrast and saturation vary by up to this share")
    brightness: float | None = option(None, "brightness varies by up to this share [as --color_jitter says]")
    contrast: float | None = option(None, "contrast varies by up to this share [as --color_jitter says]")
    saturation: float | None = option(None, "saturation varies by up to this share [as --color_jitter says]")
    gray_rate: float = option(0.0, "share of the training pictures that lose their colour")
    rotation: float = option(0.0, "training pictures are turned by up to so many degrees either way")
    vertical_flip: bool = option(False, "turn half of the training pictures upside down")
    noise: float = option(0.0, "Gaussian noise: its standard deviation is up to this, where white is 1")
    salt_pepper: float = option(0.0, "up to this share of the pixels becomes black or white")
    blur: float = option(0.0, "Gaussian blur: its standard deviation is up to this, in pixels that the network sees")
    cutout: float = option(0.0, "side of a square that is covered, as a share of the picture's shorter side; 0: none")
    train_batch_size: int = option(256, "pictures a step")
    test_batch_size: int = option(50, "pictures a step when embedding", resumable=True)
    cache_mb: int = option(
        0, "megabytes of memory, of each process, for decoded training pictures; 0: none are kept", resumable=True
    )
    accumulate: int = option(
        1, "pieces that a batch is embedded in, one after the other, to save memory; the gradients stay", resumable=True
    )
    amp: str = option(
        "none",
        "half precision of the network: on a GPU, or bfloat16 on a CPU that computes it",
        choices=AMP,
        resumable=True,
    )
    recompute: bool = option(
        False, "keep no inner results of the backbone but compute them again: less memory, more time", resumable=True
    )
    ema: float = option(0.0, "decay of a moving average of the weights, which is evaluated and kept; 0: none")
    sync_bn: bool = option(
        True, "several processes: batch normalisation over the batches of all of them", resumable=True
    )
    balance: str = option("none", "groups: every batch has equal shares of the groups of the data", choices=BALANCES)
    freeze: str = option(
        "none", "norms: batch normalisation's statistics stay; backbone: all up to the last feature map", choices=FROZEN
    )
    freeze_layers: int = option(
        0, "convolution and linear layers, from the picture on, that stay as they are with all between them"
    )
    group_means: bool = option(
        False, "keep the mean embedding of each group, to be taken off when pictures of a group are compared"
    )
    occlusion: str = option("none", "cover parts of the last feature map in training", choices=OCCLUSIONS)
    occlusion_rate: float = option(0.5, "occlusion: share of the pictures that are covered")
    occlusion_shapes: str = option(
        ",".join(OCCLUSION_SHAPES), "occlusion: what is covered, some of these; with --landmarks also eyes, nose, mouth"
    )
    landmarks: str | None = option(
        None, "occlusion of eyes, nose, mouth: csv of path,x1,y1,...,x5,y5; or `aligned`, for faces that align has made"
    )
    teacher: str | None = option(
        None, "network to learn the directions of embeddings from: a run or a file", resumable=True
    )
    distill_weight: float = option(7.0, "teacher: weight of what it adds to the loss")
    generations: int = option(1, "teacher: how many times; each next student starts from the last one", resumable=True)
    generation: int = option(1, "which of the generations a run is; the runs count it themselves")
    optimizer: str = option("momentum", "what updates the weights", choices=OPTIMIZERS)
    momentum: float = option(0.9, "momentum of SGD")
    weight_decay: float = option(1e-4, "L2 penalty on all weights")
    clip_norm: float = option(0.0, "clip the gradient to this global norm; 0: don't")
    lr: float = option(0.01, "learning rate")
    lr_strategy: str = option("piecewise_decay", "how the learning rate falls", choices=STRATEGIES)
    lr_steps: str = option("15000,25000", "steps at which piecewise_decay divides the rate by 10")
    plateau_patience: int = option(
        3, "plateau: evaluations without a better validation score before the rate falls", resumable=True
    )
    plateau_factor: float = option(0.1, "plateau: what the rate is multiplied by")
    warmup_steps: int = option(0, "steps over which the rate rises to --lr")
    total_iter_num: int = option(30000, "steps of the run", resumable=True)
    epochs: float | None = option(
        None,
        "length of the run in passes over the training pictures, instead of --total_iter_num; one evaluation and "
        "one checkpoint each, unless --test_iter_step and --save_iter_step are typed",
    )
    early_stop: int = option(
        0, "the run ends after so many evaluations without a better validation score; 0: never", resumable=True
    )
    display_iter_step: int = option(10, "steps between two lines of the log", resumable=True)
    test_iter_step: int = option(1000, "steps between two evaluations on the validation classes", resumable=True)
    save_iter_step: int = option(1000, "steps between two checkpoints", resumable=True)
    keep: int = option(2, "checkpoints to keep beside the best weights; 0: all", resumable=True)
    seed: int = option(0, "seed of weights, order and augmentation")
    pretrained_model: str | None = option(None, "weights to start from: a run, a file, `imagenet`, or `none`")
    partial_weights: bool = option(False, "take what fits of weights that do not fit as a whole")
    checkpoint: str | None = option(None, "run (folder) or checkpoint (file) to resume")
    onednn: bool = option(
        True, "train through oneDNN's own primitives where that is right (Paddle 3.3 on a CPU)", resumable=True
    )
    enable_ce: bool = option(False, "no effect", retired="every run prints its result now")
    with_mem_opt: bool = option(True, "no effect", retired="Paddle manages its memory by itself now")

    def validate(self) -> None:
        super().validate()
        channels = shape_of(self.image_shape)[0]
        steps_of(self.lr_steps)
        check_channel_numbers("image_mean", self.image_mean, channels)
        check_channel_numbers("image_std", self.image_std, channels)
        for name in ("train_batch_size", "test_batch_size"):
            check_range(f"--{name}", getattr(self, name), 1, 10**6)
        for name in ("total_iter_num", "display_iter_step", "test_iter_step", "save_iter_step"):
            check_range(f"--{name}", getattr(self, name), 1, COUNT)
        check_range("--plateau_patience", self.plateau_patience, 1, COUNT)
        check_range("--plateau_factor", self.plateau_factor, high=0.999, above=0)
        check_range("--early_stop", self.early_stop, 0, COUNT)
        if self.epochs is not None:
            check_range("--epochs", self.epochs, high=10**6, above=0)
            if "total_iter_num" in self.typed and self.checkpoint is None:
                raise UserError("--epochs and --total_iter_num are two lengths of one run. Type one of them.")
        if "epochs" not in self.typed:
            self.check_length()
        self._check_unused()
        for name in ("weight_decay", "clip_norm"):
            check_range(f"--{name}", getattr(self, name), 0)
        check_range("--warmup_steps", self.warmup_steps, 0, COUNT)
        check_range("--keep", self.keep, 0, COUNT)
        check_range("--cache_mb", self.cache_mb, 0, 10**7)
        check_range("--accumulate", self.accumulate, 1, self.train_batch_size)
        check_range("--freeze_layers", self.freeze_layers, 0, COUNT)
        if self.freeze_layers and self.freeze == "backbone":
            raise UserError(
                "--freeze=backbone and --freeze_layers each say how far the network stays. Type one of them."
            )
        check_range("--ema", self.ema, 0, 0.999999)
        check_range("--embedding_size", self.embedding_size, 0, 2**16)
        check_range("--seed", self.seed, 0, SEED)
        check_range("--lr", self.lr, above=0)
        check_range("--momentum", self.momentum, 0, 0.9999)
        check_range("--test_crop", self.test_crop, 0.1, 1)
        check_range("--min_crop_area", self.min_crop_area, 0.01, 1)
        check_range("--max_crop_aspect", self.max_crop_aspect, 1, 10)
        self._check_augmentation()
        self._check_occlusion()
        self._check_teaching()

    def _check_unused(self) -> None:
        if self.checkpoint is not None:  # the run itself has the option that makes sense of it
            return
        for name, strategy in STRATEGY_OF.items():
            if name in self.typed and self.lr_strategy != strategy:
                raise UserError(f"--{name} has no meaning without --lr_strategy={strategy}.")
        if "momentum" in self.typed and self.optimizer != "momentum":
            raise UserError("--momentum has no meaning without --optimizer=momentum.")

    def check_length(self) -> None:
        """Raise a UserError for what --total_iter_num is too short for; once more where --epochs becomes steps."""

    def _check_augmentation(self) -> None:
        check_range("--color_jitter", self.color_jitter, 0, 0.99)
        for name in COLOURS:
            check_range(f"--{name}", getattr(self, name) or 0, 0, 0.99)
        for name in ("gray_rate", "noise", "salt_pepper", "cutout"):
            check_range(f"--{name}", getattr(self, name), 0, 1)
        check_range("--rotation", self.rotation, 0, 180)
        check_range("--blur", self.blur, 0, 100)

    def augmentation(self) -> dict[str, Any]:
        """What Augmentation is told."""
        return {name: getattr(self, name) for name in AUGMENTATIONS}

    def shapes(self) -> tuple[str, ...]:
        """What --occlusion_shapes names."""
        return tuple(part.strip() for part in self.occlusion_shapes.split(","))

    def _check_occlusion(self) -> None:
        check_range("--occlusion_rate", self.occlusion_rate, 0, 1)
        for name in self.shapes():
            check_choice("--occlusion_shapes", name, OCCLUSION_SHAPES + OCCLUSION_BLOCKS)
        if len(set(self.shapes())) < len(self.shapes()):
            raise UserError(f"--occlusion_shapes names a shape twice; got {self.occlusion_shapes!r}.")
        for name in ("occlusion_rate", "occlusion_shapes", "landmarks"):
            if name in self.typed and self.occlusion == "none" and self.checkpoint is None:
                raise UserError(f"--{name} has no meaning without --occlusion=random or --occlusion=adversarial.")
        if self.checkpoint is None:  # else the run itself has the other of the two
            self._check_landmarks()

    def _check_landmarks(self) -> None:
        blocks = [name for name in self.shapes() if name in OCCLUSION_BLOCKS]
        if blocks and self.landmarks is None:
            raise UserError(
                f"--occlusion_shapes={blocks[0]} needs the points of the faces: give --landmarks=FILE.csv, or "
                "--landmarks=aligned for aligned ones."
            )
        if self.landmarks is not None and not blocks:
            raise UserError(
                f"--landmarks has no meaning without one of {', '.join(OCCLUSION_BLOCKS)} in --occlusion_shapes."
            )

    def _check_teaching(self) -> None:
        check_range("--distill_weight", self.distill_weight, 0)
        check_range("--generations", self.generations, 1, 1000)
        check_range("--generation", self.generation, 1, 1000)
        if "generation" in self.typed:
            raise UserError("--generation is counted by the runs themselves; say by --generations how many there are.")
        if "distill_weight" in self.typed and self.teacher is None and self.checkpoint is None:
            raise UserError("--distill_weight has no meaning without --teacher.")
