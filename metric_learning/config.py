"""Every option of the four commands: one frozen dataclass a command -> its command line, and back from a saved config.

This module imports neither Paddle nor NumPy, so that --help and a refused option answer at once.
"""

import argparse
import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn, Self, TypeVar

from metric_learning.checks import UserError, check_choice, check_range, suggestion

# The names that the tables of losses, backbones and data sources go by; tests hold these equal to the tables.
MODELS = ("ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152")
ELEMENT_LOSSES = ("softmax", "arcmargin")
PAIR_LOSSES = ("triplet", "quadruplet", "quadruplet_full", "eml", "npairs")
MININGS = ("given", "batch_hard", "semi_hard", "batch_all")
DATASETS = ("sop", "folders", "groups", "csv")
STRATEGIES = ("piecewise_decay", "cosine_decay", "linear_decay", "constant")
OPTIMIZERS = ("momentum", "adam")
PRECISIONS = ("auto", "float32", "bfloat16")
SPLITS = ("test", "val", "train", "all")

_COUNT = 10**9  # nothing that is counted is more; a slip of the finger is
_SEED = 2**31 - 1  # what all generators take

_RESUMABLE = "may change when a run is resumed"


def option(
    default: Any, help: str, *, choices: tuple[str, ...] = (), resumable: bool = False, retired: str = ""
) -> Any:
    """A field that is an option: its default, its help, what it may be, whether a resumed run may change it."""
    return field(
        default=default, metadata={"help": help, "choices": choices, _RESUMABLE: resumable, "retired": retired}
    )


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
        check_range("--split_seed", self.split_seed, 0, _SEED)

    def with_defaults(self, **values: Any) -> Self:
        """The same with other defaults: an option that was typed keeps its value."""
        known = {item.name for item in options(type(self))}
        return dataclasses.replace(self, **{k: v for k, v in values.items() if k in known and k not in self.typed})

    def to_dict(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in options(type(self))}


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
    train_batch_size: int = option(256, "pictures a step")
    test_batch_size: int = option(50, "pictures a step when embedding", resumable=True)
    optimizer: str = option("momentum", "what updates the weights", choices=OPTIMIZERS)
    momentum: float = option(0.9, "momentum of SGD")
    weight_decay: float = option(1e-4, "L2 penalty on all weights")
    clip_norm: float = option(0.0, "clip the gradient to this global norm; 0: don't")
    lr: float = option(0.01, "learning rate")
    lr_strategy: str = option("piecewise_decay", "how the learning rate falls", choices=STRATEGIES)
    lr_steps: str = option("15000,25000", "steps at which piecewise_decay divides the rate by 10")
    warmup_steps: int = option(0, "steps over which the rate rises to --lr")
    total_iter_num: int = option(30000, "steps of the run", resumable=True)
    display_iter_step: int = option(10, "steps between two lines of the log", resumable=True)
    test_iter_step: int = option(1000, "steps between two evaluations on the validation classes", resumable=True)
    save_iter_step: int = option(1000, "steps between two checkpoints", resumable=True)
    keep: int = option(2, "checkpoints to keep beside the best weights; 0: all", resumable=True)
    seed: int = option(0, "seed of weights, order and augmentation")
    pretrained_model: str | None = option(None, "weights to start from: a run, a file, `imagenet`, or `none`")
    checkpoint: str | None = option(None, "run (folder) or checkpoint (file) to resume")
    onednn: bool = option(
        True, "train through oneDNN convolutions where that is right (Paddle 3.3 on a CPU)", resumable=True
    )
    enable_ce: bool = option(False, "no effect", retired="every run prints its result now")
    with_mem_opt: bool = option(True, "no effect", retired="Paddle manages its memory by itself now")

    def validate(self) -> None:
        super().validate()
        channels = shape_of(self.image_shape)[0]
        steps_of(self.lr_steps)
        _check_channels("image_mean", self.image_mean, channels)
        _check_channels("image_std", self.image_std, channels)
        for name in ("train_batch_size", "test_batch_size"):
            check_range(f"--{name}", getattr(self, name), 1, 10**6)
        for name in ("total_iter_num", "display_iter_step", "test_iter_step", "save_iter_step"):
            check_range(f"--{name}", getattr(self, name), 1, _COUNT)
        for name in ("weight_decay", "clip_norm"):
            check_range(f"--{name}", getattr(self, name), 0)
        check_range("--warmup_steps", self.warmup_steps, 0, _COUNT)
        check_range("--keep", self.keep, 0, _COUNT)
        check_range("--embedding_size", self.embedding_size, 0, 2**16)
        check_range("--seed", self.seed, 0, _SEED)
        check_range("--lr", self.lr, above=0)
        check_range("--momentum", self.momentum, 0, 0.9999)
        check_range("--test_crop", self.test_crop, 0.1, 1)
        check_range("--min_crop_area", self.min_crop_area, 0.01, 1)
        check_range("--max_crop_aspect", self.max_crop_aspect, 1, 10)
        check_range("--color_jitter", self.color_jitter, 0, 0.99)


# What replaces the defaults where no data is given: the demo faces, small enough for two cores.
_DEMO = {
    "model": "ResNet18",
    "image_shape": "3,56,56",
    "test_crop": 1.0,
    "min_crop_area": 0.75,
    "max_crop_aspect": 1.0,
    "weight_decay": 5e-4,
    "test_classes": 60,
    "val_classes": 20,
    "display_iter_step": 10,
    "save_iter_step": 50,
}


@dataclass(frozen=True, kw_only=True)
class ElemOptions(TrainOptions):
    """Stage one: one picture at a time against class centres."""

    command: ClassVar[str] = "train_elem"
    demo: ClassVar[dict[str, Any]] = {
        **_DEMO,
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
    focal_gamma: float = option(0.0, "focal loss on top: exponent gamma; 0: plain cross-entropy")

    def validate(self) -> None:
        super().validate()
        check_range("--arc_scale", self.arc_scale, above=0)
        check_range("--arc_margin", self.arc_margin, 0, math.pi / 2)
        check_range("--focal_gamma", self.focal_gamma, 0)
        if self.class_dim is not None:
            check_range("--class_dim", self.class_dim, 1, 10**8)

    def unused(self) -> list[str]:
        """Options that were typed and that this loss does not look at."""
        arc = {"arc_scale", "arc_margin", "arc_easy_margin"}
        return sorted(self.typed & arc) if self.loss_name != "arcmargin" else []


@dataclass(frozen=True, kw_only=True)
class PairOptions(TrainOptions):
    """Stage two: pictures against each other."""

    command: ClassVar[str] = "train_pair"
    demo: ClassVar[dict[str, Any]] = {
        **_DEMO,
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


@dataclass(frozen=True, kw_only=True)
class UseOptions(Options):
    """What eval and infer share: they need no flags, all that they have to know travels with the weights."""

    pretrained_model: str | None = option(None, "weights: a run or a file; by default the newest run")
    checkpoint: str | None = option(None, "the same as --pretrained_model")
    batch_size: int = option(10, "pictures a step")
    model: str | None = option(None, "backbone; by default as the weights say", choices=MODELS)
    embedding_size: int | None = option(None, "size of the embedding; by default as the weights say")
    image_shape: str | None = option(None, "channels,height,width; by default as the weights say")
    color_order: str | None = option(None, "RGB or BGR; by default as the weights say", choices=("RGB", "BGR"))
    image_mean: str | None = option(None, "mean of each channel, R,G,B in 0..1; by default as the weights say")
    image_std: str | None = option(None, "standard deviation of each channel; by default as the weights say")
    test_crop: float | None = option(None, "share of the short side that is kept; by default as the weights say")
    flip_test: bool = option(False, "add the embedding of the mirrored picture")

    def validate(self) -> None:
        super().validate()
        check_range("--batch_size", self.batch_size, 1, 10**6)
        channels = shape_of(self.image_shape)[0] if self.image_shape is not None else None
        _check_channels("image_mean", self.image_mean or "", channels)
        _check_channels("image_std", self.image_std or "", channels)
        if self.embedding_size is not None:
            check_range("--embedding_size", self.embedding_size, 0, 2**16)
        if self.test_crop is not None:
            check_range("--test_crop", self.test_crop, 0.1, 1)
        if self.pretrained_model and self.checkpoint and self.pretrained_model != self.checkpoint:
            raise UserError("--pretrained_model and --checkpoint name two different weights; give one of them.")

    @property
    def weights(self) -> str | None:
        return self.pretrained_model or self.checkpoint


@dataclass(frozen=True, kw_only=True)
class EvalOptions(UseOptions):
    command: ClassVar[str] = "eval"
    purpose: ClassVar[str] = "Measure an embedding: Recall@k, MAP@R, and verification TAR@FAR group by group."

    split: str | None = option(None, "which pictures are measured [test]", choices=SPLITS)
    pairs: str | None = option(None, "csv of pairs (a,b,same[,group]) to verify instead of all pairs within each group")
    fars: str = option("0.1,0.01,0.001,0.0001", "false-accept rates to report the true-accept rate at")
    output: str | None = option(None, "where the results go (json; a plot beside it) [in the run's folder]")

    def validate(self) -> None:
        super().validate()
        fars_of(self.fars)
        if self.pairs and self.split:
            raise UserError("--split has no meaning with --pairs: the pairs say which pictures are measured.")


@dataclass(frozen=True, kw_only=True)
class InferOptions(UseOptions):
    command: ClassVar[str] = "infer"
    purpose: ClassVar[str] = "Use an embedding: embed pictures, compare two of them, find the nearest."

    batch_size: int = option(1, "pictures a step")
    input: str | None = option(None, "a folder, a list (one path a line) or a picture to embed [the test pictures]")
    output: str | None = option(None, "where the embeddings go (.npz) [embeddings.npz in the run's folder]")
    pair: list[str] | None = option(None, "two pictures to compare: --pair a.jpg b.jpg")
    query: str | None = option(None, "a picture, to find the nearest among the embeddings in --output")
    top_k: int = option(5, "how many of the nearest")

    def validate(self) -> None:
        super().validate()
        check_range("--top_k", self.top_k, 1, _COUNT)
        given = [f"--{name}" for name in ("pair", "query", "input") if getattr(self, name)]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} are different jobs; give one of them.")


COMMANDS: tuple[type[Options], ...] = (ElemOptions, PairOptions, EvalOptions, InferOptions)

AnyOptions = TypeVar("AnyOptions", bound=Options)
AnyTrain = TypeVar("AnyTrain", bound=TrainOptions)


def options(kind: type[Options]) -> list["dataclasses.Field[Any]"]:
    """The fields of a command that are options."""
    return [item for item in dataclasses.fields(kind) if "help" in item.metadata]


def parse(kind: type[AnyOptions], arguments: list[str] | None = None) -> AnyOptions:
    """The command line as options. Anything wrong with it is a UserError of one line; --help prints and exits."""
    parser = _parser(kind)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UserError(f"{_unknown(kind, unknown[0])} See python {kind.command}.py --help.")
    values = vars(known)
    config = kind(**values, typed=frozenset(values))
    config.validate()
    return config


def _unknown(kind: type[Options], typed: str) -> str:
    """What is wrong with a word of the command line that no option takes."""
    if not typed.startswith("-"):
        return f"Unexpected {typed!r}: options are typed --name=value."
    name = typed.split("=")[0]
    owners = [f"{other.command}.py" for other in COMMANDS if name[2:] in {item.name for item in options(other)}]
    if owners and name.startswith("--"):
        return f"{kind.command}.py has no option {name}; {' and '.join(owners)} {'have' if owners[1:] else 'has'}."
    return f"Unknown option {name}.{suggestion(name, [f'--{item.name}' for item in options(kind)])}"


def from_dict(kind: type[AnyOptions], saved: dict[str, Any]) -> AnyOptions:
    """Options from a run's saved config; what this version doesn't know is left out."""
    hints = typing.get_type_hints(kind)
    values = {item.name: saved[item.name] for item in options(kind) if item.name in saved}
    for name, value in values.items():
        allowed = typing.get_args(hints[name]) or (hints[name],)
        whole_for_float = float in allowed and type(value) is int
        if type(value) not in [typing.get_origin(hint) or hint for hint in allowed] and not whole_for_float:
            raise UserError(f"The saved config can't be used: {name} is {value!r}. Was it edited?")
    config = kind(**values)
    config.validate()
    return config


def resumed(config: AnyTrain, saved: dict[str, Any]) -> AnyTrain:
    """The saved options of the run that `config` asks to resume, with what was typed that a resumed run may change."""
    before = from_dict(type(config), saved)
    changes = {}
    for item in options(type(config)):
        if item.name not in config.typed or item.name in ("checkpoint", "data_dir"):
            continue
        old, new = getattr(before, item.name), getattr(config, item.name)
        if new != old and not item.metadata[_RESUMABLE] and not item.metadata["retired"]:
            raise UserError(
                f"A resumed run keeps --{item.name}={old}; got {new}. Leave the option out, or start a new run."
            )
        changes[item.name] = new
    if "data_dir" in config.typed:  # the data may have been moved
        changes["data_dir"] = config.data_dir
    return dataclasses.replace(before, **changes, checkpoint=config.checkpoint, typed=config.typed)


def shape_of(text: str) -> tuple[int, int, int]:
    """'3,224,224' -> (3, 224, 224)."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(_is_count(part) for part in parts):
        raise UserError(f"--image_shape must be channels,height,width such as 3,224,224; got {text!r}.")
    channels, height, width = (int(part) for part in parts)
    if channels not in (1, 3) or not (8 <= height <= 4096 and 8 <= width <= 4096):
        raise UserError(f"--image_shape needs 1 or 3 channels and sides of 8 to 4096 pixels; got {text!r}.")
    return channels, height, width


def steps_of(text: str) -> tuple[int, ...]:
    """'15000,25000' -> (15000, 25000), rising; '' -> ()."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(_is_count(part) for part in parts) or [*map(int, parts)] != sorted({int(part) for part in parts}):
        raise UserError(f"--lr_steps must be rising steps such as 15000,25000; got {text!r}.")
    return tuple(int(part) for part in parts)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def numbers_of(name: str, text: str) -> tuple[float, ...]:
    """'0.5,0.5,0.5' -> (0.5, 0.5, 0.5); '' -> ()."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UserError(f"--{name} must be numbers such as 0.5,0.5,0.5; got {text!r}.") from None


def _check_channels(name: str, text: str, channels: int | None) -> None:
    numbers = numbers_of(name, text)
    if numbers and len(numbers) not in ((1, 3) if channels is None else (channels,)):
        raise UserError(f"--{name} needs a number for each channel ({channels or '1 or 3'}); got {text!r}.")
    for number in numbers:
        check_range(f"--{name}", number, above=0 if name == "image_std" else None)


def fars_of(text: str) -> tuple[float, ...]:
    """'0.1,0.001' -> (0.1, 0.001)."""
    try:
        fars = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        fars = ()
    if not fars or not all(0 < far < 1 for far in fars):
        raise UserError(f"--fars must be rates between 0 and 1 such as 0.01,0.001; got {text!r}.")
    return tuple(sorted(set(fars), reverse=True))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}. See python {self.prog} --help.")


def _parser(kind: type[Options]) -> argparse.ArgumentParser:
    name = f"{kind.command}.py"
    parser = _Parser(prog=name, usage=f"{name} [--option=value ...]", description=kind.purpose, allow_abbrev=False)
    hints = typing.get_type_hints(kind)
    for item in options(kind):
        convert, repeated = _converter(hints[item.name])
        default = "" if item.default in (None, "") else f" [{item.default}]"
        one_of = f" ({', '.join(item.metadata['choices'])})" if item.metadata["choices"] else ""
        parser.add_argument(
            f"--{item.name}",
            type=convert,
            default=argparse.SUPPRESS,
            nargs=2 if repeated else None,
            metavar=("A", "B") if repeated else convert.__name__.upper(),
            help=f"{item.metadata['help']}{one_of}{default}".replace("%", "%%"),
        )
    return parser


def _converter(hint: Any) -> tuple[Any, bool]:
    """The function that reads one value of this type, and whether the option takes a pair of them."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is list:
        return text, True
    return {bool: boolean, int: integer, float: number, str: text}[hint], False


def boolean(text: str) -> bool:
    """True, False, 1, 0, yes, no, on, off, in any case."""
    value = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in value:
        raise argparse.ArgumentTypeError(f"must be True or False; got {text!r}")
    return value[text.lower()]


def integer(text: str) -> int:
    """A whole number, in digits."""
    if not (text.isascii() and text.removeprefix("-").removeprefix("+").isdigit() and len(text) < 100):
        raise argparse.ArgumentTypeError(f"must be a whole number; got {text!r}")
    return int(text)


def number(text: str) -> float:
    """Any number; whether it may be is for `validate` to say."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number; got {text!r}") from None


def text(text: str) -> str:
    return text
