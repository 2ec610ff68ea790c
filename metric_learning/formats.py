"""Weights of other projects: how each is known by its names, which model it is, and what pictures it was trained on.

Names are compared in PyTorch's way whoever wrote them: `running_mean`, `running_var`, and `weight` also for a PReLU.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from metric_learning.checks import UserError
from metric_learning.data.transforms import IMAGENET_MEAN, IMAGENET_STD, PictureSpec
from metric_learning.files import Arrays

Names = dict[str, str]  # theirs -> ours
Depths = dict[tuple[int, ...], int]  # blocks of each stage -> the depth in our model's name

IMAGENET = PictureSpec((3, 224, 224), test_crop=0.875)
DEIT = PictureSpec((3, 224, 224), test_crop=0.9)
FACE = PictureSpec((3, 112, 112), (0.5,) * 3, (0.5,) * 3, test_crop=1.0)  # (x - 127.5) / 127.5
FACE_IMAGENET = PictureSpec((3, 112, 112), IMAGENET_MEAN, IMAGENET_STD, test_crop=1.0)

# What wrappers and checkpoints put before the names.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.", "encoder.")
HEADS = r"(fc|head|head_dist|classifier|logits|partialfc)\..+|weight"


@dataclass(frozen=True)
class Format:
    """A source of weights. `marks`: names that it has, all of them; `model`: which of our models a file of it is.

    `heads`: pattern of the classifier's names, which are left out; `rename`: its names -> ours, where they differ.
    """

    name: str
    marks: tuple[str, ...]
    model: Callable[[Arrays], str]
    picture: PictureSpec
    heads: str = HEADS
    rename: Callable[[Arrays], Names] | None = None


@dataclass(frozen=True)
class Found:
    """A file that was recognised: its arrays by our names (those of the backbone), and the names that are left out."""

    format: Format
    model: str
    arrays: Arrays
    heads: tuple[str, ...]


def torch_names(arrays: Arrays) -> Arrays:
    """The same with PyTorch's names for what the frameworks call differently, without counts of batches."""
    return {_torch_name(name): a for name, a in arrays.items() if not name.endswith("num_batches_tracked")}


def _torch_name(name: str) -> str:
    name = re.sub(r"\._mean$", ".running_mean", name)
    name = re.sub(r"\._variance$", ".running_var", name)
    return re.sub(r"\._weight$", ".weight", name)


def recognise(arrays: Arrays) -> Found | None:
    """What the arrays of a file (names in PyTorch's way) are; None for a format that is not in the table.

    Raises UserError for a size of a known network that is not among the models.
    """
    arrays = strip_prefixes(arrays)
    below = [p for p in PREFIXES if any(name.startswith(p) for name in arrays)]
    for prefix in ("", *below):  # a checkpoint may hold the backbone below a name of its own, beside a head
        inside = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
        for form in FORMATS:
            if all(mark in inside for mark in form.marks):
                aside = [name for name in arrays if not name.startswith(prefix)]
                return _found(form, inside, aside)
    return None


def strip_prefixes(arrays: Arrays) -> Arrays:
    """Without what stands before every name."""
    for prefix in PREFIXES:
        if arrays and all(name.startswith(prefix) for name in arrays):
            return strip_prefixes({name.removeprefix(prefix): a for name, a in arrays.items()})
    return arrays


def split_heads(arrays: Arrays, heads: str = HEADS) -> tuple[Arrays, tuple[str, ...]]:
    """(the arrays without those of a classifier, the names of these)."""
    left = tuple(name for name in arrays if re.fullmatch(heads, name))
    return {name: a for name, a in arrays.items() if name not in left}, left


def _found(form: Format, arrays: Arrays, aside: list[str]) -> Found:
    model = form.model(arrays)
    kept, heads = split_heads(arrays, form.heads)
    names = form.rename(kept) if form.rename else {}
    return Found(form, model, {names.get(name, name): a for name, a in kept.items()}, (*aside, *heads))


# ---- which model


def _always(model: str) -> Callable[[Arrays], str]:
    return lambda arrays: model


def _blocks(arrays: Arrays, pattern: str) -> tuple[int, ...]:
    """How many blocks each of four stages has; `pattern` finds (stage, block) in a name."""
    found = [re.match(pattern, name) for name in arrays]
    places = {(int(m[1]), int(m[2])) for m in found if m}
    return tuple(sum(stage == number for stage, _ in places) for number in range(1, 5))


_STAGES = r"layer(\d)\.(\d+)\."
_IR: Depths = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34, (3, 4, 14, 3): 50, (3, 13, 30, 3): 101, (3, 8, 36, 3): 152}
_BASIC: Depths = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
_BOTTLENECK: Depths = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


def _sized(family: str, depths: Depths, blocks: tuple[int, ...]) -> str:
    if blocks not in depths:
        known = ", ".join(f"{family}{depth}" for depth in depths.values())
        raise UserError(f"The weights are of a {family} with {blocks} blocks, which is none of {known}.")
    return f"{family}{depths[blocks]}"


def _iresnet(arrays: Arrays) -> str:
    family = "IRSE" if "layer1.0.se.fc1.weight" in arrays else "IR"
    return _sized(family, _IR, _blocks(arrays, _STAGES))


def _resnet(arrays: Arrays) -> str:
    depths = _BOTTLENECK if "layer1.0.conv3.weight" in arrays else _BASIC
    return _sized("ResNet", depths, _blocks(arrays, _STAGES))


def _paddlecv_resnet(arrays: Arrays) -> str:
    ours = {_paddlecv_name(name) or "": a for name, a in arrays.items()}
    return _resnet(ours)


def _mobilefacenet(arrays: Arrays) -> str:
    return "MobileFaceNet" if "conv1.2.weight" in arrays else "MobileFaceNetReLU6"  # the weight of a PReLU


def _mobilenet_v3(large: str) -> Callable[[Arrays], str]:
    return lambda arrays: "MobileNetV3Large" if large in arrays else "MobileNetV3Small"


# ---- names that differ


_PARTS = {"scale": "weight", "offset": "bias", "mean": "running_mean", "variance": "running_var"}
_BRANCHES = {"branch2a": "1", "branch2b": "2", "branch2c": "3"}


def _paddlecv_names(arrays: Arrays) -> Names:
    """PaddleCV's names (res2a_branch2a_weights, bn2a_branch2a_scale, ...) -> this package's."""
    return {name: ours for name in arrays if (ours := _paddlecv_name(name))}


def _paddlecv_name(name: str) -> str | None:
    if name == "conv1_weights":
        return "conv1.weight"
    stem = re.fullmatch(r"bn_conv1_(scale|offset|mean|variance)", name)
    if stem:
        return f"bn1.{_PARTS[stem[1]]}"
    found = re.fullmatch(r"(res|bn)(\d)([a-z])(\d*)_(branch\w+?)_(weights|scale|offset|mean|variance)", name)
    if not found:
        return None
    kind, stage, letter, number, branch, part = found.groups()
    index = int(number) if number else ord(letter) - ord("a")  # 101 and 152 layers: res4a, res4b1, res4b2, ...
    part = "weight" if kind == "res" else _PARTS[part]
    if branch == "branch1":
        layer = "downsample.0" if kind == "res" else "downsample.1"
    elif branch in _BRANCHES:
        layer = ("conv" if kind == "res" else "bn") + _BRANCHES[branch]
    else:
        return None
    return f"layer{int(stage) - 1}.{index}.{layer}.{part}"


def _mobilenet_v3_names(arrays: Arrays) -> Names:
    """torchvision's features.I.block.J.* -> paddle.vision's blocks.(I - 1).{expand,bottleneck,linear}_conv and mid_se.

    J counts the parts that a block has: no expansion where the width stays, no squeeze-excite in some.
    """
    places = [re.match(r"features\.(\d+)\.(?:block\.(\d+)\.(fc1)?)?", name) for name in arrays]
    parts = {(int(m[1]), int(m[2]), bool(m[3])) for m in places if m and m[2]}
    squeezes = {(block, part) for block, part, squeeze in parts if squeeze}
    last = max((int(m[1]) for m in places if m), default=0)
    roles: dict[tuple[int, int], str] = {}
    for block in {block for block, _, _ in parts}:
        plain = sorted({part for b, part, _ in parts if b == block and (b, part) not in squeezes})
        named = ("expand_conv", "bottleneck_conv", "linear_conv")[-len(plain) :]
        roles |= {(block, part): role for part, role in zip(plain, named, strict=False)}
        roles |= {place: "mid_se" for place in squeezes if place[0] == block}
    return {name: _mobilenet_v3_name(name, roles, last) for name in arrays}


def _mobilenet_v3_name(name: str, roles: dict[tuple[int, int], str], last: int) -> str:
    found = re.fullmatch(r"features\.(\d+)\.(?:block\.(\d+)\.)?(.+)", name)
    if not found:
        return name
    block, part, rest = int(found[1]), found[2], found[3]
    if part is None:
        return f"{'conv' if block == 0 else 'lastconv' if block == last else f'blocks.{block - 1}'}.{rest}"
    return f"blocks.{block - 1}.{roles.get((block, int(part)), part)}.{rest}"


# ---- the table. The first whose marks are all there is taken.

FORMATS = (
    Format(
        "arcface_torch or PLSC IResNet",
        ("conv1.weight", "layer1.0.prelu.weight", "layer1.0.bn3.weight", "fc.weight", "features.weight"),
        _iresnet,
        FACE,
        heads=r"(head|partialfc)\..+|weight",  # fc belongs to the embedding
    ),
    Format(
        "arcface_torch or PLSC mbf",
        ("layers.0.layers.0.weight", "conv_sep.layers.0.weight", "features.layers.2.weight"),
        _always("MobileFaceNetX2"),
        FACE,
        heads=r"(head|partialfc)\..+|weight",
    ),
    Format(
        "foamliu MobileFaceNet",
        ("dw_conv.depthwise.weight", "gdconv.depthwise.weight", "conv3.weight"),
        _mobilefacenet,
        FACE_IMAGENET,
    ),
    Format(
        "torchvision or paddle.vision ResNet",
        ("conv1.weight", "bn1.weight", "layer1.0.conv2.weight", "layer4.0.downsample.0.weight"),
        _resnet,
        IMAGENET,
    ),
    Format(
        "PaddleCV ResNet",
        ("conv1_weights", "res2a_branch2a_weights"),
        _paddlecv_resnet,
        IMAGENET,
        heads=r"fc_?\d*[._].+",
        rename=_paddlecv_names,
    ),
    Format(
        "paddle.vision MobileNetV1",
        ("conv1.0.weight", "conv2_1._depthwise_conv.0.weight"),
        _always("MobileNetV1"),
        IMAGENET,
    ),
    Format(
        "torchvision or paddle.vision MobileNetV2",
        ("features.1.conv.0.0.weight", "features.18.0.weight"),
        _always("MobileNetV2"),
        IMAGENET,
    ),
    Format(
        "torchvision MobileNetV3",
        ("features.0.0.weight", "features.1.block.0.0.weight"),
        _mobilenet_v3("features.16.0.weight"),
        IMAGENET,
        rename=_mobilenet_v3_names,
    ),
    Format(
        "paddle.vision MobileNetV3",
        ("conv.0.weight", "blocks.0.bottleneck_conv.0.weight"),
        _mobilenet_v3("blocks.14.linear_conv.0.weight"),
        IMAGENET,
    ),
    Format(
        "torchvision or paddle.vision VGG16 with batch normalisation",
        ("features.0.weight", "features.1.running_mean", "features.40.weight", "classifier.3.weight"),
        _always("VGG16BN"),
        IMAGENET,
        heads=r"classifier\.6\..+",
    ),
    Format(
        "torchvision or paddle.vision VGG16",
        ("features.0.weight", "features.28.weight", "classifier.3.weight"),
        _always("VGG16"),
        IMAGENET,
        heads=r"classifier\.6\..+",
    ),
    Format(
        "timm or DeiT ViT-S/16",
        ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.11.attn.qkv.weight"),
        _always("ViTS16"),
        DEIT,
    ),
)
