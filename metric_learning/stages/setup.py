"""What more than one command needs: the data, the weights that were asked for, what a report says about itself."""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metric_learning import __version__, dist, runtime
from metric_learning.checks import UserError
from metric_learning.config import Options, TrainOptions, UseOptions, numbers_of, shape_of
from metric_learning.data.duplicates import duplicates
from metric_learning.data.lists import CsvRules
from metric_learning.data.names import joined
from metric_learning.data.picture_splits import Division, divide
from metric_learning.data.sources import PictureSet
from metric_learning.data.splits import Splits, load_splits
from metric_learning.data.synthetic import write_demo_faces
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import Embedder, EmbedderSpec, saved_spec
from metric_learning.runs import Run, newest_run, run_of, weights_file
from metric_learning.runtime import paddle_version
from metric_learning.weights import foreign_spec, load_weights, same_family

Say = Callable[[str], None]
DEMO_FOLDER = "demo_faces"

# What a later command takes over from the run that its weights come from, so that classes kept for the test stay kept.
DATA_OPTIONS = (
    *("data_dir", "dataset", "train_list", "test_list", "test_classes", "val_classes", "split_seed"),
    *("group_column", "skip_missing"),
)


def data_of(run: Run) -> dict[str, Any]:
    saved = run.config()
    return {name: saved[name] for name in DATA_OPTIONS if name in saved}


def same_data(config: Options, run: Run) -> bool:
    """Whether the command reads the data that the run was trained on."""
    return _place(config.data_dir) == _place(run.config().get("data_dir"))


def _place(data_dir: str | None) -> str:
    return os.path.realpath(data_dir or DEMO_FOLDER)


def with_data_of(config: Any, run: Run | None, say: Say) -> Any:
    """The options with the data and the split of `run`, unless other data was typed."""
    if run is None or ("data_dir" in config.typed and not same_data(config, run)):
        return config
    taken = data_of(run)
    if "data_dir" in config.typed:
        del taken["data_dir"]  # the same place, as it was typed now
    say(f"Data and split as in {run.folder}.")
    return config.with_defaults(**taken)


def begin(config: Options) -> None:
    """Choose the device and join the other processes, if there are any."""
    runtime.select_device(config.use_gpu)
    with runtime.silenced():  # it tells of ports and flags
        dist.start()
    if not dist.is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the first one says all that there is to say


def load_data(config: Options, say: Say, division: Division | None = None, set_aside: bool = True) -> Splits:
    """Read and split the data, by class or, with a division, by picture; without --data_dir draw demo faces first.

    set_aside: False for data that the weights were not trained on: no classes are, unless that is asked for.
    """
    folder = config.data_dir
    if folder is None:
        if dist.is_first():
            write_demo_faces(DEMO_FOLDER)
        dist.barrier()
        folder = DEMO_FOLDER
        say(f"Demo faces: ./{DEMO_FOLDER}, drawings of nobody; nothing about real people follows from them.")
    lists: dict[str, Any] = {"train_list": config.train_list, "test_list": config.test_list}
    lists["rules"] = CsvRules(None, config.group_column, config.skip_missing)
    if division is not None:
        splits = divide(folder, config.dataset, division, **lists)
    else:
        shares: dict[str, Any] = {"test_classes": config.test_classes, "val_classes": config.val_classes}
        splits = load_splits(folder, config.dataset, **shares, seed=config.split_seed, set_aside=set_aside, **lists)
    for line in splits.notes:
        say(line)
    return splits


def division_of(options: Mapping[str, Any]) -> Division | None:
    """How a run of these options divides the pictures; None where it sets classes apart."""
    if options.get("task") != "classify":
        return None
    known = {"val_share": 0.2, "test_share": None, "folds": 0} | dict(options)
    fold = int(options.get("fold") or 1)
    return Division(known["val_share"], known["test_share"], known["folds"], fold, int(options.get("split_seed", 0)))


def report_duplicates(splits: Splits, say: Say) -> None:
    """Pictures that stand in train and in test make the test look better than it is: name them."""
    found = duplicates(joined([splits.train.paths, splits.val.paths]), splits.test.paths)
    if found:
        some = "; ".join(f"{a} = {b}" for a, b in found[:3])
        say(f"WARNING: {len(found)} pictures of the test are exact copies of training pictures, e.g. {some}")


def report_overlap(measured: PictureSet, run: Run, say: Say) -> bool:
    """Warn where classes to be measured were trained on in `run`: the figures are not those of unseen classes then.

    Classes are known by their names, also where the data has been moved since. True if there are any.
    """
    classes = run.classes()
    overlap = sorted((set(classes.get("train", [])) | set(classes.get("val", []))) & set(measured.classes))
    if overlap:
        say(
            f"WARNING: {len(overlap)} of the {len(measured.classes)} classes to be measured are named like classes "
            f"that {run.folder} was trained on ({', '.join(overlap[:3])}{', ...' if len(overlap) > 3 else ''}). "
            "If they are the same, these are not figures of unseen classes."
        )
    return bool(overlap)


# ---- places to write to


def output_file(typed: str | None, run: Run | None, name: str) -> Path:
    """Where a result goes: the typed file, `name` in the typed folder, or in the run's folder (else here)."""
    place = Path(typed) if typed else (run.folder if run else Path()) / name
    if place.is_dir():
        place = place / name
    if place.suffix != Path(name).suffix:
        place = place.with_name(place.name + Path(name).suffix)
    return place


def check_writable(folder: str | Path, option: str) -> None:
    """Make the folder, and a file in it that is gone at once, so that hours of computing are not for nothing."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"Can't write to {folder}: {error.strerror}. Choose another {option}.") from error


# ---- weights


def find_weights(config: UseOptions) -> tuple[Path, Run | None]:
    """The weights that eval and infer were asked for, or those of the newest run; and their run, if they have one."""
    if config.named_weights:
        file = weights_file(config.named_weights)
        return file, run_of(file)
    run = newest_run(config.model_save_dir)
    if run is None:
        raise UserError(
            f"There is no run in {config.model_save_dir!r} yet. Train one by train_elem.py, or give --pretrained_model."
        )
    return weights_file(run.folder), run


def file_spec(file: Path, typed: str | None, partial: bool, say: Say) -> EmbedderSpec | None:
    """The network and the pictures that a weights file is for; `typed`: the --model that was typed, which must fit.

    From the file itself, or, for foreign weights, from what they are recognised as; None where neither says it. With
    `partial` foreign weights may be put into another model.
    """
    spec = saved_spec(file)
    foreign = foreign_spec(file) if spec is None else None
    if foreign is not None:
        spec, source = foreign
        if partial and typed is not None and not same_family(typed, spec.model):
            spec = dataclasses.replace(spec, model=typed)
        picture = spec.picture
        say(
            f"{file}: {source}, so --model={spec.model}, pictures {','.join(map(str, picture.shape))} "
            f"{picture.color_order}, mean {_numbers(picture.mean)}, std {_numbers(picture.std)}."
        )
    if (
        spec is not None
        and typed is not None
        and typed != spec.model
        and not (foreign and same_family(typed, spec.model))
    ):
        raise UserError(f"{file} holds a {spec.model}, not --model={typed}. Leave --model out, or name other weights.")
    return spec


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def load_embedder(file: Path, config: UseOptions, say: Say) -> Embedder:
    """The network of a weights file; flags that were typed stand in for what a foreign file does not say."""
    own = saved_spec(file) is not None
    known = file_spec(file, config.model, config.partial_weights, say)
    if known is None and config.model is None:
        raise UserError(
            f"{file} does not say what network it is for. Name it by --model (and --embedding_size, --image_shape)."
        )
    if known and config.image_shape is not None:
        check_channels(file, known, config.image_shape)
    spec = _typed_over(known or EmbedderSpec(str(config.model), 0, PictureSpec()), config)
    if known:
        spec = dataclasses.replace(spec, model=known.model)
    if known and own and spec.embedding_size != known.embedding_size:
        raise UserError(
            f"{file} holds a {known.model} with --embedding_size={known.embedding_size}, "
            f"not {spec.embedding_size}. Leave --embedding_size out."
        )
    embedder = Embedder(spec)
    said = load_weights(embedder, file, config.partial_weights)
    if not own:
        say(said)
    embedder.eval()
    channels, height, width = spec.picture.shape
    say(f"Weights: {file} ({spec.model}, {embedder.size}-d, {channels}x{height}x{width} {spec.picture.color_order})")
    return embedder


def check_channels(file: Path, known: EmbedderSpec, image_shape: str) -> None:
    """The sides of the pictures are free; how many channels the first convolution takes is not."""
    if shape_of(image_shape)[0] != known.picture.shape[0]:
        raise UserError(f"{file} takes {known.picture.shape[0]} channels, not --image_shape={image_shape}.")


def _typed_over(spec: EmbedderSpec, config: UseOptions) -> EmbedderSpec:
    picture = spec.picture.to_dict()
    if config.image_shape is not None:
        picture["shape"] = shape_of(config.image_shape)
    for option, name in (("image_mean", "mean"), ("image_std", "std")):
        if getattr(config, option):
            picture[name] = numbers_of(option, getattr(config, option))
    for name in ("color_order", "test_crop"):
        if getattr(config, name) is not None:
            picture[name] = getattr(config, name)
    size = spec.embedding_size if config.embedding_size is None else config.embedding_size
    return EmbedderSpec(config.model or spec.model, size, PictureSpec.from_dict(picture), spec.embedding_norm)


def spec_of(config: TrainOptions) -> EmbedderSpec:
    """What the training options say of the network."""
    picture = PictureSpec(
        shape=shape_of(config.image_shape),
        mean=numbers_of("image_mean", config.image_mean),
        std=numbers_of("image_std", config.image_std),
        color_order=config.color_order,
        test_crop=config.test_crop,
    )
    return EmbedderSpec(config.model, config.embedding_size, picture, config.embedding_norm)


def options_of(spec: EmbedderSpec) -> dict[str, Any]:
    """The reverse of `spec_of`: the network of some weights as training options."""
    picture = spec.picture
    return {
        "model": spec.model,
        "embedding_size": spec.embedding_size,
        "embedding_norm": spec.embedding_norm,
        "image_shape": ",".join(str(side) for side in picture.shape),
        "image_mean": ",".join(repr(value) for value in picture.mean),
        "image_std": ",".join(repr(value) for value in picture.std),
        "color_order": picture.color_order,
        "test_crop": picture.test_crop,
    }


# ---- what a report says of itself


def about(
    config: Options, embedder: Embedder, pictures: PictureSet, split: str, weights: Path, way: str
) -> dict[str, Any]:
    """Data, split, counts, network, versions: the lines that stand above every figure."""
    import cv2

    _, height, width = embedder.spec.picture.shape
    return {
        "data": config.data_dir or f"embedded demo faces ({DEMO_FOLDER})",
        "split": split,
        "pictures / classes": f"{len(pictures):,} / {len(pictures.classes):,}",
        "weights": str(weights),
        "network": f"{embedder.spec.model}, {embedder.size}-d, input {height}x{width}",
        "flip test": "yes" if getattr(config, "flip_test", False) else "no",
        "split seed": config.split_seed,
        "computed by": way,
        "versions": f"metric_learning {__version__}, {paddle_version()[0]}, "
        f"numpy {np.__version__}, opencv {cv2.__version__}",
    }
