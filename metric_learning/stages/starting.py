"""Where a run starts from: a checkpoint, weights, or nothing; and the defaults that they bring."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.config import CLASSIFY, ElemOptions, TrainOptions, resumed
from metric_learning.config.names import AUGMENTATIONS, COLOURS
from metric_learning.data.loader import BadPictures
from metric_learning.data.sources import PictureSet
from metric_learning.embedder import Embedder
from metric_learning.engine import Predictor
from metric_learning.evaluate import embed_set
from metric_learning.extract import Reader
from metric_learning.losses import ElementLoss
from metric_learning.losses.base import Loss
from metric_learning.losses.centers import AllCenters
from metric_learning.losses.group_margins import GroupMarginLoss
from metric_learning.metrics.group_means import class_sums
from metric_learning.runs import Run, checkpoint_to_resume, run_of, weights_file
from metric_learning.stages import setup
from metric_learning.weights import imagenet_file, load_weights

AnyTrain = TypeVar("AnyTrain", bound=TrainOptions)
AUGMENTATION = ("min_crop_area", "max_crop_aspect", "flip", "color_jitter", *AUGMENTATIONS)


def resume(config: AnyTrain) -> tuple[Run | None, Path | None, AnyTrain]:
    """(run, checkpoint, its options) where --checkpoint names a run; (None, None, config) for a new one.

    The checkpoint is None where the run was killed before its first; it begins anew then, from its own options.
    """
    if config.checkpoint is None:
        return None, None, config
    run, checkpoint = checkpoint_to_resume(config.checkpoint)
    saved = run.config()
    if saved.get("command") != config.command:
        raise UserError(f"{run.folder} is a run of {saved.get('command')}.py; resume it with that script.")
    config = resumed(config, saved)
    config.validate()  # what was typed, now with the run's own options; before the run notes it
    if dist.is_first():
        run.rewrite_config({"command": config.command, **config.to_dict(), "checkpoint": saved.get("checkpoint")})
    return run, checkpoint, config


def start(config: AnyTrain, before: Run | None, say: setup.Say) -> AnyTrain:
    """Options with the defaults that demo, run `before` and weights bring; its weights are named in them."""
    if before is None and config.pretrained_model not in (None, "none", "imagenet"):
        before = run_of(weights_file(str(config.pretrained_model)))
    elif before is not None:
        config = dataclasses.replace(config, pretrained_model=str(weights_file(before.folder)))
    if before is not None:
        config = setup.with_data_of(config, before, say)
    if config.data_dir is None:
        config = _with_recipe(config, config.demo_recipe())
        shown = ("model", "image_shape", "train_batch_size", "total_iter_num", "lr")
        recipe = ", ".join(f"{name}={getattr(config, name)}" for name in shown)
        say(f"No --data_dir: the embedded demo faces, with a recipe for two CPU cores ({recipe}).")
    if isinstance(config, ElemOptions) and config.task == "classify":
        by_steps = "total_iter_num" in config.typed
        small = {name: value for name, value in CLASSIFY.items() if not (by_steps and name == "epochs")}
        config = _with_recipe(config, small)
        told = ", ".join(f"{name}={getattr(config, name)}" for name in small)
        say(f"--task=classify: a recipe for two CPU cores, unless typed otherwise ({told}).")
    config = _like_the_weights(config, say)
    if before is not None and setup.same_data(config, before):
        config = config.with_defaults(**_augmentation_of(before.config(), config.typed))
    config.validate()
    return config


def _with_recipe(config: AnyTrain, recipe: dict[str, Any]) -> AnyTrain:
    """The options with the defaults of a recipe. Typed --lr_steps keep the strategy that they are of."""
    if "lr_steps" in config.typed:
        recipe = {name: value for name, value in recipe.items() if name != "lr_strategy"}
    return config.with_defaults(**recipe)


def _augmentation_of(saved: dict[str, Any], typed: frozenset[str]) -> dict[str, Any]:
    """The augmentation of a saved config. A typed --color_jitter is not overruled by the single ones of that."""
    overruled = COLOURS if "color_jitter" in typed else ()
    return {name: saved[name] for name in AUGMENTATION if name in saved and name not in overruled}


def _like_the_weights(config: AnyTrain, say: setup.Say) -> AnyTrain:
    """The network that the weights are of, and the pictures that it takes, unless typed otherwise."""
    weights = None if config.pretrained_model == "imagenet" else weights_of(config)
    typed = config.model if "model" in config.typed else None
    spec = setup.file_spec(weights, typed, config.partial_weights, say) if weights else None
    if spec is None or weights is None:
        return config
    if "image_shape" in config.typed:
        setup.check_channels(weights, spec, config.image_shape)
    return dataclasses.replace(config.with_defaults(**setup.options_of(spec)), model=spec.model)


def weights_of(config: TrainOptions) -> Path | None:
    """The file of the weights that the options name; None for a random start."""
    if config.pretrained_model in (None, "none"):
        return None
    if config.pretrained_model == "imagenet":
        return imagenet_file(config.model)
    return weights_file(str(config.pretrained_model))


def starting_run(config: TrainOptions) -> Run | None:
    """The run that the weights to start from come from, if they come from one (and it is still there)."""
    if config.pretrained_model in (None, "none", "imagenet"):
        return None
    return run_of(str(config.pretrained_model))


def initial_weights(config: TrainOptions, embedder: Embedder) -> str:
    """Fill the embedder as the options say, and say so."""
    weights = weights_of(config)
    return (
        load_weights(embedder, weights, config.partial_weights) if weights else f"Weights: random, seed {config.seed}."
    )


def centers_at_means(config: TrainOptions, embedder: Embedder, loss: Loss, train: PictureSet, bad: BadPictures) -> str:
    """Point each class centre at the mean of its pictures' embeddings, without augmentation, and say so."""
    element = loss.element if isinstance(loss, GroupMarginLoss) else loss
    assert isinstance(element, ElementLoss) and isinstance(element.centers, AllCenters)
    shape = embedder.spec.picture.shape
    reader = Reader(embedder.spec.picture, config.test_batch_size, config.num_workers)
    found = embed_set(Predictor(embedder, shape, config.precision), train, reader, bad)
    element.centers.point_at(class_sums(found.embeddings, found.labels, len(train.classes)))
    return f"Class centres: the means of {len(found.paths)} embeddings."
