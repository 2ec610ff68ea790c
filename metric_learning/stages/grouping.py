"""Group-aware training: balanced batches, margins by group, and how they follow the validation classes."""

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, PairOptions, TrainOptions
from metric_learning.data.group_samplers import GroupClassSampler, GroupShuffleSampler, group_codes, groups_of_classes
from metric_learning.data.loader import BadPictures
from metric_learning.data.names import Coded
from metric_learning.data.sources import PictureSet
from metric_learning.embedder import save_beside, saved_group_means
from metric_learning.engine import Predictor
from metric_learning.evaluate import Embedded, embed_set, rejected_by_group
from metric_learning.extract import Reader
from metric_learning.log import RunLog
from metric_learning.losses import ElementLoss
from metric_learning.losses.base import Loss
from metric_learning.losses.group_margins import GroupMarginLoss
from metric_learning.metrics.group_means import GroupMeans, group_means
from metric_learning.runs import Run

BALANCE = "--balance=groups"


def balanced_pictures(config: ElemOptions, train: PictureSet) -> tuple[GroupShuffleSampler, str]:
    """The sampler of stage one, and what to say of it."""
    names, codes = group_codes(train.groups, BALANCE)
    sampler = GroupShuffleSampler(codes, config.train_batch_size, config.seed, config.balance_power)
    sizes = ", ".join(f"{name} {len(rows)}" for name, rows in zip(names, sampler.members, strict=True))
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(names, sampler.shares, strict=True))
    said = (
        f"shares of the batches {shares}"
        if config.balance_power
        else f"equal shares of {len(names)} groups in every batch"
    )
    return sampler, f"{BALANCE}: {said} (training pictures: {sizes})."


def balanced_classes(config: PairOptions, train: PictureSet) -> tuple[GroupClassSampler, str]:
    """The sampler of stage two, and what to say of it."""
    names, codes = group_codes(train.groups, BALANCE)
    of_class = groups_of_classes(train.labels, codes)
    k = config.samples_each_class
    sampler = GroupClassSampler(train.labels, of_class[train.labels], names, config.train_batch_size, k, config.seed)
    return sampler, f"{BALANCE}: {config.train_batch_size // k // len(names)} classes of each of {', '.join(names)}."


def with_group_margins(config: ElemOptions, loss: ElementLoss, train: PictureSet) -> tuple[Loss, list[str]]:
    """The loss with a margin for each group, where that is asked for, and what to say of it."""
    if config.group_margins is None:
        return loss, []
    names, codes = group_codes(train.groups, f"--group_margins={config.group_margins}")
    of_class = groups_of_classes(train.labels, codes)
    rate, largest = config.group_margin_rate if config.adapts_margins else 0.0, config.group_margin_max
    made = GroupMarginLoss(loss, names, of_class, config.fixed_margins(), rate, largest)
    said = (
        f"Margins move with the validation FRR, by up to {largest:g}" if config.adapts_margins else "Margins by group"
    )
    return made, [f"{said}: {_listed(made)}."]


def check_groups(config: TrainOptions, train: PictureSet) -> None:
    """A UserError where the means of groups are to be kept and there are no groups."""
    if config.group_means:
        group_codes(train.groups, "--group_means")


def keep_means(run: Run, predictor: Predictor, train: PictureSet, reader: Reader, bad: BadPictures) -> GroupMeans:
    """The mean embedding of each group of the training pictures, without augmentation, put into the best weights."""
    found = embed_set(predictor, train, reader, bad)
    assert found.groups is not None
    means = group_means(found.embeddings, found.labels, found.groups)
    before = saved_group_means(run.best)
    if dist.is_first() and (before is None or before.to_dict() != means.to_dict()):  # a resumed run changes no file
        save_beside(run.best, group_means=means)
    dist.barrier()
    return means


def check_validation(config: object, loss: Loss, val: PictureSet) -> list[str]:
    """A UserError where margins are to follow validation classes that there are none of; a note on missing groups."""
    if not (isinstance(config, ElemOptions) and config.adapts_margins and isinstance(loss, GroupMarginLoss)):
        return []
    there = Coded.of(val.groups).present()
    if len(there & set(loss.groups)) < 2:
        raise UserError(
            "--group_margins=auto needs validation classes of 2 or more of the training groups; there are "
            f"{len(val.classes)} classes of {', '.join(sorted(there)) or 'no group'}: raise --val_classes."
        )
    missing = [name for name in loss.groups if name not in there]
    return [f"No validation classes of {', '.join(missing)}: the margin stays as it is there."] if missing else []


def follow(loss: Loss, found: Embedded, log: RunLog, step: int) -> None:
    """Move the margins that are to be moved, by the embedded validation pictures, and say so."""
    if not (isinstance(loss, GroupMarginLoss) and loss.rate):
        return
    far, frr = rejected_by_group(found)
    loss.adapt(frr)
    log.scalars("group_frr", frr, step)
    log.scalars("group_margin", loss.by_group(), step)
    rates = ", ".join(f"{name} {100 * rate:.1f} %" for name, rate in frr.items())
    why = f"FRR at FAR {far:g}: {rates}" if far else "too few validation pairs to tell"
    log.say(f"step {step}: group margins {_listed(loss)} ({why})")


def _listed(loss: GroupMarginLoss) -> str:
    return ", ".join(f"{name} {offset:+.4f}" for name, offset in loss.by_group().items())
