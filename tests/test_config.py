"""The command line: every option, what it takes, what it refuses and how."""

import dataclasses
import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metric_learning import losses, schedule
from metric_learning.backbones import BACKBONES
from metric_learning.checks import UserError
from metric_learning.config import (
    COMMANDS,
    ElemOptions,
    EvalOptions,
    InferOptions,
    PairOptions,
    from_dict,
    names,
    options,
    parse,
    resumed,
    steps_of,
)
from metric_learning.config.elem import MARGIN_SETTINGS
from metric_learning.config.pair import LOSS_SETTINGS
from metric_learning.data.sources import SOURCES
from metric_learning.losses import quadruplet, triplet

ROOT = Path(__file__).resolve().parents[1]
ELEM, PAIR, EVAL, INFER = COMMANDS


def refusal(kind, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(kind, list(arguments))
    said = str(caught.value)
    assert "\n" not in said and said.endswith((".", "?")), said
    return said


# ---- tables


@pytest.mark.parametrize(
    ("named", "table"),
    [
        (names.MODELS, BACKBONES),
        (names.ELEMENT_LOSSES, losses.ELEMENT_LOSSES),
        (names.PAIR_LOSSES, losses.PAIR_LOSSES),
        (names.MININGS, triplet.MININGS),
        (names.DATASETS, SOURCES),
        (names.STRATEGIES, schedule.STRATEGIES),
    ],
)
def test_choices_are_the_tables(named, table) -> None:
    assert list(named) == list(table)


def test_minings_of_quadruplets_are_choices() -> None:
    assert set(quadruplet.MININGS) <= set(names.MININGS)
    for mining in names.MININGS:
        typed = ["--loss_name=quadruplet_full", f"--mining={mining}"]
        if mining in quadruplet.MININGS:
            assert parse(PAIR, typed).mining == mining
        else:
            assert "given or batch_hard" in refusal(PAIR, *typed)


# ---- defaults and types

# The flags that users of PaddleCV type, with their defaults; None: from the data or from the weights.
SHARED = {
    "model": "ResNet50",
    "embedding_size": 0,
    "test_batch_size": 50,
    "image_shape": "3,224,224",
    "lr_strategy": "piecewise_decay",
    "display_iter_step": 10,
    "use_gpu": True,
    "pretrained_model": None,
    "checkpoint": None,
    "model_save_dir": "output",
    "enable_ce": False,
}
TYPED_BY_USERS = {
    ELEM: {
        **SHARED,
        "train_batch_size": 256,
        "class_dim": None,
        "lr": 0.01,
        "lr_steps": "15000,25000",
        "total_iter_num": 30000,
        "test_iter_step": 1000,
        "save_iter_step": 1000,
        "loss_name": "softmax",
        "arc_scale": 80.0,
        "arc_margin": 0.15,
        "arc_easy_margin": False,
    },
    PAIR: {
        **SHARED,
        "train_batch_size": 120,
        "class_dim": None,
        "lr": 0.0001,
        "lr_steps": "100000",
        "total_iter_num": 100000,
        "test_iter_step": 5000,
        "save_iter_step": 5000,
        "loss_name": "triplet",
        "samples_each_class": 2,
        "margin": 0.1,
        "npairs_reg_lambda": 0.01,
    },
    EVAL: {"model": None, "embedding_size": None, "image_shape": None, "batch_size": 10, "use_gpu": True},
    INFER: {"model": None, "embedding_size": None, "image_shape": None, "batch_size": 1, "use_gpu": True},
}


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.command)
def test_flags_of_paddlecv_have_their_defaults_and_can_be_typed(kind) -> None:
    bare = parse(kind, [])
    for name, default in TYPED_BY_USERS[kind].items():
        assert getattr(bare, name) == default, name
        if default is not None:
            again = parse(kind, [f"--{name}={default}"])
            assert getattr(again, name) == default and type(getattr(again, name)) is type(default), name
            assert again == bare and again.typed == {name}


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.command)
def test_every_option_is_in_the_help(kind, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        parse(kind, ["--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and kind.purpose in " ".join(said.split())
    for item in options(kind):
        assert f"--{item.name} " in said, item.name
        for choice in item.metadata["choices"]:
            assert choice in said


@pytest.mark.parametrize(
    ("text", "value"),
    [("True", True), ("False", False), ("1", True), ("0", False), ("yes", True), ("no", False), ("TRUE", True)],
)
def test_booleans(text: str, value: bool) -> None:
    assert parse(ELEM, [f"--use_gpu={text}"]).use_gpu is value
    assert parse(ELEM, ["--use_gpu", text]).use_gpu is value


@pytest.mark.parametrize("kind", [ELEM, PAIR])
def test_both_trainings_take_the_number_of_classes(kind) -> None:
    assert parse(kind, ["--class_dim=11318"]).class_dim == 11318
    assert resumed(parse(kind, ["--class_dim=1", "--checkpoint=run"]), kind(class_dim=1).to_dict()).class_dim == 1


def test_what_is_off_by_default_may_be_typed_bare() -> None:
    assert parse(InferOptions, ["--serve", "--flip_test"]).serve is True
    assert parse(InferOptions, ["--serve", "False"]).serve is False


@pytest.mark.parametrize("typed", ["--use_gpu=maybe", "--use_gpu=", "--use_gpu"])
def test_what_is_no_boolean(typed: str) -> None:
    assert refusal(ELEM, typed).startswith("--use_gpu")


# ---- refusals


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--los_name", "arc"], "'--loss_name'"),
        (["-loss_name", "arcmargin"], "'--loss_name'"),
        (["--loss", "arcmargin"], "'--loss_name'"),
        (["--total_iter", "3"], "'--total_iter_num'"),
        (["--LR=1"], "'--lr'"),
        (["--lr-steps=1"], "'--lr_steps'"),
        (["---lr=1"], "'--lr'"),
        (["--loss_name=arc"], "'arcmargin'"),
        (["--model=resnet50"], "'ResNet50'"),
        (["--dataset=folder"], "'folders'"),
    ],
)
def test_misspelt_names_are_refused_with_the_nearest(typed: list[str], meant: str) -> None:
    assert f"Did you mean {meant}?" in refusal(ELEM, *typed)


@pytest.mark.parametrize(
    ("kind", "typed", "word"),
    [
        (EVAL, "--loss_name=eml", "train_elem.py and train_pair.py have"),
        (ELEM, "--pair", "infer.py has"),
        (ELEM, "--batch_size=3", "eval.py and infer.py have"),
        (ELEM, "foo", "Unexpected 'foo'"),
    ],
)
def test_options_of_another_command(kind, typed: str, word: str) -> None:
    assert word in refusal(kind, typed)


NOT_NUMBERS = ("abc", "nan", "inf", "-inf", "1e999", "", "1,5", "0x10", "٣,", "1 2")


@pytest.mark.parametrize("text", NOT_NUMBERS)
@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.command)
@pytest.mark.sweep
def test_no_numeric_option_takes_what_is_no_number(kind, text: str) -> None:
    for item in options(kind):
        default = item.default
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert refusal(kind, f"--{item.name}={text}").startswith(f"--{item.name}")


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.command)
def test_no_option_takes_a_number_below_0_or_without_end(kind) -> None:
    for item in options(kind):
        if isinstance(item.default, int | float) and not isinstance(item.default, bool):
            said = refusal(kind, f"--{item.name}=-1")
            assert "at least" in said or "above" in said
        if type(item.default) is int:
            assert "at most" in refusal(kind, f"--{item.name}={10**30}"), item.name


@pytest.mark.parametrize(
    ("kind", "typed"),
    [
        (ELEM, "--lr=0"),
        (ELEM, "--lr=-1"),
        (ELEM, "--train_batch_size=1e3"),
        (ELEM, "--train_batch_size=0"),
        (ELEM, "--total_iter_num=0"),
        (ELEM, "--lr_steps=5,3"),
        (ELEM, "--lr_steps=5,5"),
        (ELEM, "--lr_steps=5,²"),
        (ELEM, "--lr_steps=-5"),
        (ELEM, "--lr_steps=" + "9" * 5000),
        (ELEM, "--image_shape=3,224"),
        (ELEM, "--image_shape=3x224x224"),
        (ELEM, "--image_shape=2,10,10"),
        (ELEM, "--image_shape=3,99999,1"),
        (ELEM, "--image_shape=3,²4,24"),
        (ELEM, "--image_shape="),
        (ELEM, "--image_mean=0.5"),
        (ELEM, "--image_mean=a,b,c"),
        (ELEM, "--image_mean=nan,0,0"),
        (ELEM, "--image_std=0,1,1"),
        (ELEM, "--momentum=1"),
        (ELEM, "--test_crop=0"),
        (ELEM, "--min_crop_area=1.5"),
        (ELEM, "--max_bad_pictures=2"),
        (ELEM, "--test_classes=nan"),
        (ELEM, "--class_dim=0"),
        (ELEM, "--arc_margin=2"),
        (ELEM, "--dropout=1"),
        (ELEM, "--freeze_layers=-1"),
        (ELEM, "--label_smoothing=1"),
        (ELEM, "--label_smoothing=-0.1"),
        (ELEM, "--class_weights=balance"),
        (ELEM, "--class_weights=a:1,a:2"),
        (ELEM, "--class_weights=a:0"),
        (ELEM, "--class_weights=a:inf"),
        (ELEM, "--class_weights=:2"),
        *((ELEM, f"--{name}=-1") for name in sorted(set().union(*MARGIN_SETTINGS.values()) - {"easy_margin"})),
        (ELEM, "--scale=0"),
        (ELEM, "--l_a=nan"),
        (ELEM, "--data_dir="),
        (ELEM, "--model_save_dir="),
        (ELEM, "--checkpoint="),
        (PAIR, "--samples_each_class=1"),
        (PAIR, "--margin2=1"),
        (EVAL, "--fars=0,1"),
        (EVAL, "--fars=x"),
        (PAIR, "--recall_ks=2,1"),
        (PAIR, "--recall_ks=0,1"),
        (PAIR, "--recall_ks=1,,2"),
        (PAIR, "--recall_tau2=0"),
        (PAIR, "--temperature=-1"),
        (PAIR, "--ms_base=2"),
        (PAIR, "--ms_alpha=0"),
        (PAIR, "--circle_margin=1.5"),
        (PAIR, "--neg_margin=-1"),
        (PAIR, "--memory_size=-1"),
        (PAIR, "--memory_start=-1"),
        (EVAL, "--fars=,"),
        (EVAL, "--split=foo"),
        (EVAL, "--image_mean=0.5,0.5"),
        (EVAL, "--image_std=-1"),
        (INFER, "--top_k=0"),
        (INFER, "--input="),
    ],
)
def test_values_that_cannot_be(kind, typed: str) -> None:
    name = typed.split("=")[0]
    assert name in refusal(kind, typed)


@pytest.mark.parametrize(
    ("kind", "typed"),
    [
        (PAIR, "--loss_name=eml --mining=given"),
        (PAIR, "--loss_name=eml --soft_margin=1"),
        (PAIR, "--loss_name=eml --temperature=0.2"),
        (PAIR, "--loss_name=contrastive --circle_margin=0.3"),
        (PAIR, "--loss_name=circle --margin2=0.3"),
        (PAIR, "--loss_name=supcon --recall_ks=1,2"),
        (PAIR, "--memory_start=10"),
        (PAIR, "--memory_size=10"),
        (PAIR, "--memory_size=10 --loss_name=quadruplet_full --mining=given"),
        (PAIR, "--memory_size=10 --loss_name=eml --total_iter_num=1001"),
        (PAIR, "--freeze=backbone --freeze_layers=3"),
        (PAIR, "--optimizer=adam --momentum=0.9"),
        (ELEM, "--lr_strategy=plateau --lr_steps=5"),
        (ELEM, "--lr_strategy=constant --lr_steps="),
        (ELEM, "--label_smoothing=0.1 --centers=partial"),
        (ELEM, "--label_smoothing=0.1 --centers=pool --loss_name=arcmargin"),
        (ELEM, "--class_weights=balanced --centers=pool --loss_name=arcmargin"),
        (ELEM, "--loss_name=bce --centers=partial"),
        (ELEM, "--loss_name=bce --centers=pool"),
        (ELEM, "--loss_name=bce --init_centers=means"),
        (EVAL, "--pretrained_model=a --checkpoint=b"),
        (EVAL, "--pairs=a.csv --split=val"),
        (EVAL, "--templates=a.csv"),
        (EVAL, "--folds=10"),
        (EVAL, "--folds=1 --pairs=a.csv"),
        (EVAL, "--folds=1001 --pairs=a.csv"),
        (INFER, "--pair a b --query c"),
        (INFER, "--query c --input d"),
        (INFER, "--remove=a.jpg"),
        (INFER, "--top_k=3"),
        (INFER, "--pair a b --top_k=3"),
        (INFER, "--gallery=g --input=a --topk=3"),
        *((INFER, f"--probabilities {typed}") for typed in ("--pair a b", "--query=a", "--serve", "--task=embed")),
        (INFER, "--gallery=g --remove=a --probabilities"),
        (INFER, "--rerank=True"),
        (INFER, "--query=a --rerank_k1=3"),
        (INFER, "--query=a --rerank=True --rerank_k1=3"),
        (EVAL, "--rerank_lambda=0.5"),
        (EVAL, "--rerank=True --rerank_lambda=2"),
        (EVAL, "--rerank=True --pairs=a.csv"),
        (INFER, "--gallery=g --remove=a.jpg --input=b"),
        (INFER, "--gallery=g --pair a b"),
        (INFER, "--gallery=g --output=x.png"),
        (INFER, "--pair a"),
        (INFER, "--pair a b c"),
    ],
)
def test_senseless_combinations(kind, typed: str) -> None:
    refusal(kind, *typed.split())


@pytest.mark.parametrize(
    ("kind", "typed", "unused"),
    [
        (ELEM, "--arc_margin=0.2", ["arc_margin"]),
        (ELEM, "--arc_margin=0.2 --loss_name=arcmargin", []),
        (ELEM, "--margin=0.2 --scale=9 --loss_name=arcmargin", []),
        (ELEM, "--margin=0.2 --scale=9 --h=1", ["h", "margin", "scale"]),
        (ELEM, "--arc_scale=9 --l_a=1 --margin=1 --lambda_g=3 --loss_name=magface", ["arc_scale", "margin"]),
        (PAIR, "--margin=0.2 --loss_name=eml", ["margin"]),
        (PAIR, "--samples_each_class=2", ["samples_each_class"]),
        (PAIR, "--samples_each_class=2 --mining=batch_hard", []),
        (PAIR, "--npairs_reg_lambda=1 --loss_name=npairs", []),
        (PAIR, "--npairs_reg_lambda=1 --margin=0.3 --loss_name=circle", ["margin", "npairs_reg_lambda"]),
        (PAIR, "--temperature=0.2 --loss_name=supcon", []),
        (PAIR, "--memory_size=9 --loss_name=triplet --mining=semi_hard --total_iter_num=1002", []),
    ],
)
def test_options_that_the_loss_does_not_look_at_are_told(kind, typed: str, unused: list[str]) -> None:
    assert parse(kind, typed.split()).unused() == unused


def test_a_memory_may_start_late_where_the_steps_are_not_known_yet() -> None:
    typed = ["--loss_name=eml", "--memory_size=9", "--memory_start=200000", "--epochs=1000"]
    sized = dataclasses.replace(parse(PAIR, typed), total_iter_num=200001)
    with pytest.raises(UserError, match=r"no step of the 200001 of --epochs=1000 that"):
        sized.check_length()
    dataclasses.replace(sized, total_iter_num=200002).check_length()


def test_settings_of_margins_are_those_of_the_losses() -> None:
    assert list(MARGIN_SETTINGS) == list(losses.ELEMENT_LOSSES)
    every = set().union(*MARGIN_SETTINGS.values())
    assert every <= {item.name for item in options(ELEM)}
    for name, settings in MARGIN_SETTINGS.items():
        assert set(settings) == set(losses.margin_settings(name)), name


@pytest.mark.parametrize("name", names.ELEMENT_LOSSES)
def test_every_typed_setting_of_a_margin_reaches_it(name: str) -> None:
    values = {"scale": 7.0, "margin": 1.25, "easy_margin": True, "l_a": 11.0, "u_a": 70.0, "l_margin": 0.2} | {
        "u_margin": 0.9,
        "lambda_g": 3.0,
        "h": 0.5,
        "ema_rate": 0.25,
        "lambda_base": 9.0,
        "lambda_gamma": 2.0,
        "lambda_min": 1.5,
    }
    told = parse(ELEM, [f"--loss_name={name}", *(f"--{key}={values[key]}" for key in MARGIN_SETTINGS[name])])
    assert told.unused() == []
    margin = losses.element_loss(name, 2, 2, **told.margin_settings()).margin
    assert {key: getattr(margin, key) for key in MARGIN_SETTINGS[name]} == {k: values[k] for k in MARGIN_SETTINGS[name]}
    bare = losses.element_loss(name, 2, 2, **parse(ELEM, [f"--loss_name={name}"]).margin_settings()).margin
    own = losses.element_loss(name, 2, 2).margin
    assert all(getattr(bare, key) == getattr(own, key) for key in MARGIN_SETTINGS[name])


def test_class_weights_are_read_by_name() -> None:
    told = parse(ELEM, ["--class_weights=0:1.5, a:b :2"])
    assert not told.balances_classes and told.named_class_weights() == {"0": 1.5, "a:b": 2.0}
    told = parse(ELEM, ["--class_weights=balanced"])
    assert told.balances_classes and told.named_class_weights() == {}
    assert not parse(ELEM, []).balances_classes


def test_settings_of_pair_losses_are_those_of_the_losses() -> None:
    assert list(LOSS_SETTINGS) == list(losses.PAIR_LOSSES)
    for name, settings in LOSS_SETTINGS.items():
        assert set(settings.values()) <= {item.name for item in options(PAIR)}
        without_option = {"beta"} if name == "eml" else set()
        assert set(settings) | without_option == set(losses.pair_settings(name)), name


@pytest.mark.parametrize("name", names.PAIR_LOSSES)
def test_every_typed_setting_of_a_pair_loss_reaches_it(name: str) -> None:
    values = {"mining": "batch_hard", "soft_margin": True, "recall_ks": "2,3"}
    values |= {said: 0.125 for said in LOSS_SETTINGS[name].values() if said not in values}
    told = parse(PAIR, [f"--loss_name={name}", *(f"--{said}={values[said]}" for said in LOSS_SETTINGS[name].values())])
    assert told.unused() == []
    loss = losses.pair_loss(name, **told.loss_settings())
    expected = {setting: values[said] for setting, said in LOSS_SETTINGS[name].items()}
    assert {setting: getattr(loss, setting) for setting in expected} == expected | (
        {"ks": (2, 3)} if name == "recall_at_k" else {}
    )
    bare = losses.pair_loss(name, **parse(PAIR, [f"--loss_name={name}"]).loss_settings())
    own = losses.pair_loss(name)
    assert all(getattr(bare, setting) == getattr(own, setting) for setting in expected)


def test_arcmargin_has_two_names_for_a_setting_and_takes_one() -> None:
    arc = ["--loss_name=arcmargin"]
    assert parse(ELEM, [*arc, "--arc_scale=64"]).margin_settings()["scale"] == 64.0
    assert parse(ELEM, [*arc, "--scale=30", "--arc_margin=0.3"]).margin_settings()["scale"] == 30.0
    demo = parse(ELEM, [*arc, "--scale=30"]).with_defaults(**ElemOptions.demo).margin_settings()
    assert (demo["scale"], demo["margin"]) == (30.0, ElemOptions.demo["arc_margin"])
    assert "one setting" in refusal(ELEM, *arc, "--scale=30", "--arc_scale=64")
    assert "--margin" in refusal(ELEM, *arc, "--margin=2")
    assert parse(ELEM, ["--loss_name=sphereface", "--margin=4"]).margin == 4.0
    assert parse(ELEM, ["--loss_name=amsoftmax", "--arc_scale=9", "--scale=30"]).margin_settings()["scale"] == 30.0


@pytest.mark.parametrize(
    ("text", "value"), [("", ()), ("0", (0,)), ("5", (5,)), ("5, 7", (5, 7)), ("15000,25000", (15000, 25000))]
)
def test_lists_of_steps(text: str, value: tuple[int, ...]) -> None:
    assert steps_of(parse(ELEM, [f"--lr_steps={text}"]).lr_steps) == value


def test_the_last_of_repeated_options_counts() -> None:
    assert parse(ELEM, ["--lr=0.1", "--lr", "0.2"]).lr == 0.2


# ---- saved and resumed


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.command)
def test_a_config_survives_being_saved(kind) -> None:
    changed = {"data_dir": "some where", "test_classes": 7.0, "use_gpu": False, "threads": 3}
    made = dataclasses.replace(parse(kind, []), **changed)
    assert from_dict(kind, made.to_dict()) == made
    assert from_dict(kind, {**made.to_dict(), "option_of_a_later_version": 1, "command": "x"}) == made


@pytest.mark.parametrize(
    "edit", [{"lr": "fast"}, {"lr": None}, {"use_gpu": 1}, {"seed": 1.5}, {"seed": True}, {"loss_name": ["a"]}]
)
def test_a_saved_config_that_was_spoilt(edit) -> None:
    with pytest.raises(UserError, match="saved config"):
        from_dict(ELEM, {**ElemOptions().to_dict(), **edit})


def test_a_whole_number_may_stand_for_a_float_in_a_saved_config() -> None:
    assert from_dict(ELEM, {"lr": 1, "test_classes": 20}).lr == 1


def test_defaults_give_way_to_what_was_typed() -> None:
    typed = parse(ELEM, ["--lr=0.5"]).with_defaults(lr=0.1, train_batch_size=64, unknown=3)
    assert (typed.lr, typed.train_batch_size) == (0.5, 64)
    same = parse(ELEM, ["--lr=0.01"]).with_defaults(lr=0.1)
    assert same.lr == 0.01  # typed, though it is the default


def test_the_demo_recipes_are_options_and_hold() -> None:
    for kind in (ElemOptions, PairOptions):
        assert set(kind.demo) <= {item.name for item in options(kind)}
        kind().with_defaults(**kind.demo).validate()


SAVED = {**ElemOptions(lr=0.5, data_dir="old", total_iter_num=100).to_dict(), "command": "train_elem"}


def test_a_resumed_run_keeps_its_options() -> None:
    again = resumed(parse(ELEM, ["--checkpoint=run"]), SAVED)
    assert (again.lr, again.total_iter_num, again.data_dir, again.checkpoint) == (0.5, 100, "old", "run")


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        ("--total_iter_num=200", "total_iter_num", 200),
        ("--data_dir=moved", "data_dir", "moved"),
        ("--num_workers=0", "num_workers", 0),
        ("--threads=1", "threads", 1),
        ("--lr=0.5", "lr", 0.5),  # the same
        ("--enable_ce=True", "enable_ce", True),
    ],
)
def test_what_a_resumed_run_may_change(typed: str, name: str, value: object) -> None:
    assert getattr(resumed(parse(ELEM, ["--checkpoint=run", typed]), SAVED), name) == value


@pytest.mark.parametrize(
    "typed", ["--lr=0.01", "--seed=1", "--train_batch_size=8", "--loss_name=arcmargin", "--pretrained_model=none"]
)
def test_what_a_resumed_run_must_not_change(typed: str) -> None:
    with pytest.raises(UserError, match=f"A resumed run keeps {typed.split('=')[0]}="):
        resumed(parse(ELEM, ["--checkpoint=run", typed]), SAVED)


def test_a_classification_is_not_resumed_into_generations() -> None:
    saved = ElemOptions(task="classify", teacher="t").to_dict() | {"command": "train_elem"}
    again = resumed(parse(ELEM, ["--checkpoint=run", "--generations=2"]), saved)
    with pytest.raises(UserError, match="--generations has no meaning with --task=classify"):
        again.validate()


# ---- speed

IMPORTS = """
import sys
from metric_learning.cli import main
from metric_learning import config
kind = getattr(config, sys.argv[1])
try:
    status = main(kind, sys.argv[2:])
except SystemExit as end:
    status = end.code
loaded = [name for name in ("paddle", "numpy", "cv2", "PIL") if name in sys.modules]
assert not loaded, loaded
sys.exit(status)
"""


@pytest.mark.parametrize(("typed", "status"), [("--help", 0), ("--los_name=arc", 2), ("--use_gpu=x", 2)])
def test_help_and_refusals_answer_before_anything_heavy_is_imported(typed: str, status: int) -> None:
    kinds = (ElemOptions, PairOptions, EvalOptions, InferOptions)
    for kind in kinds[: 4 if status == 0 else 1]:
        command = [sys.executable, "-c", IMPORTS, kind.__name__, typed]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert done.stderr.count("\n") == (1 if status else 0)


@pytest.mark.slow
def test_help_and_refusals_answer_at_once() -> None:
    """Half a second at the best of some tries, on a machine that may be busy with other things."""
    for command, typed in itertools.product(("train_elem", "infer"), ("--help", "--los_name=arc")):
        took = []
        for _ in range(4):
            start = time.perf_counter()
            subprocess.run([sys.executable, f"{command}.py", typed], cwd=ROOT, capture_output=True, check=False)
            took.append(time.perf_counter() - start)
        assert min(took) < 0.5
