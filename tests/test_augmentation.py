"""The options of augmentation, as the two training commands take them: ranges, what stage two takes over, resume."""

import dataclasses
from pathlib import Path

import pytest
from cli_cases import refused, run, write_picture
from small_runs import equal_arrays

from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, PairOptions, from_dict, parse
from metric_learning.config.names import AUGMENTATIONS, COLOURS
from metric_learning.data.augmentation import Augmentation
from metric_learning.files import read_json, read_tensors
from metric_learning.stages.starting import AUGMENTATION, _augmentation_of

pytestmark = pytest.mark.filterwarnings("ignore:When training")
KINDS = (ElemOptions, PairOptions)
# None of them is anyone's default.
TYPED = {"color_jitter": 0.1, "saturation": 0.5, "gray_rate": 0.2, "rotation": 10.0, "vertical_flip": True} | {
    "noise": 0.05,
    "salt_pepper": 0.02,
    "blur": 1.0,
    "cutout": 0.3,
}
FLAGS = [f"--{name}={value}" for name, value in TYPED.items()]


def test_the_options_are_the_settings_of_augmentation() -> None:
    assert list(AUGMENTATIONS) == [field.name for field in dataclasses.fields(Augmentation)]
    for kind in KINDS:
        assert Augmentation(**parse(kind, []).augmentation()) == Augmentation()
        told = Augmentation(**parse(kind, FLAGS).augmentation())
        assert told == Augmentation(**{name: value for name, value in TYPED.items() if name != "color_jitter"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "most"),
    [
        *((name, 0.99) for name in ("color_jitter", *COLOURS)),
        *((name, 1) for name in ("gray_rate", "noise", "salt_pepper", "cutout")),
        ("rotation", 180),
        ("blur", 100),
    ],
)
def test_ranges(kind, name: str, most: float) -> None:
    for value in (0, most):
        Augmentation(**parse(kind, [f"--{name}={value}"]).augmentation())
    for value in (-0.01, most + 0.01, "nan", "inf"):
        with pytest.raises(UserError, match=f"^--{name} must be"):
            parse(kind, [f"--{name}={value}"])


def test_a_run_of_before_has_none_of_them() -> None:
    saved = {k: v for k, v in ElemOptions(color_jitter=0.2).to_dict().items() if k not in AUGMENTATIONS}
    again = from_dict(ElemOptions, saved)
    assert again.color_jitter == 0.2 and Augmentation(**again.augmentation()) == Augmentation()


def test_what_stage_two_takes_over() -> None:
    saved = parse(ElemOptions, FLAGS).to_dict()
    assert set(AUGMENTATION) == {"min_crop_area", "max_crop_aspect", "flip", "color_jitter", *AUGMENTATIONS}
    assert _augmentation_of(saved, frozenset()) == {name: saved[name] for name in AUGMENTATION}
    assert _augmentation_of({"noise": 0.1, "lr": 3}, frozenset()) == {"noise": 0.1}
    jitter = parse(PairOptions, ["--color_jitter=0.3"])  # what is typed counts, not stage one's --saturation
    told = jitter.with_defaults(**_augmentation_of(saved, jitter.typed))
    assert (told.color_jitter, told.saturation, told.rotation) == (0.3, None, 10.0)


# ---- runs


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("augmented") / "data"
    for label in range(4):
        for number in range(3):
            write_picture(folder / f"class{label:02d}" / f"{number}.png", label, number)
    return folder


def train(command: str, data: Path, place: Path, *typed: str):
    split = ("--test_classes=0", "--val_classes=0", "--image_shape=1,32,32", "--save_iter_step=2")
    return run(command, *split, f"--data_dir={data}", f"--model_save_dir={place}", *typed)


def weights(place: Path, stage: str = "elem"):
    (newest,) = place.glob(f"{stage}-*/checkpoints/latest.safetensors")
    return read_tensors(newest)[0]


@pytest.mark.slow
def test_runs_resume_to_the_bit_and_stage_two_takes_over(data, tmp_path) -> None:
    whole, halves, other = tmp_path / "whole", tmp_path / "halves", tmp_path / "other"
    for place, steps, more in ((whole, 4, []), (halves, 2, []), (other, 4, ["--rotation=0"])):
        said = train("train_elem", data, place, *FLAGS, f"--total_iter_num={steps}", *more)
        assert said.status == 0, said
    (half,) = halves.glob("elem-*")
    refused(run("train_elem", f"--checkpoint={half}", "--noise=0.3", small=False), "keeps --noise=0.05")
    said = run("train_elem", f"--checkpoint={half}", "--total_iter_num=4", "--num_workers=3", small=False)
    assert said.status == 0, said
    equal_arrays(weights(whole), weights(halves))
    with pytest.raises(AssertionError):
        equal_arrays(weights(whole), weights(other))
    said = train("train_pair", data, whole, "--loss_name=eml", "--noise=0.1")
    assert said.status == 0, said
    (config,) = whole.glob("pair-*/config.json")
    found = read_json(config)
    assert {name: found[name] for name in TYPED} == TYPED | {"noise": 0.1}
