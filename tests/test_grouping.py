"""Group-aware training through the command line: what is refused, what is said, and that a resumed run is the same."""

import json
from pathlib import Path

import cli_cases
import numpy as np
import pytest
from cli_cases import Said, refused, run, working_in
from small_runs import equal_arrays

from metric_learning.checks import UserError
from metric_learning.config import ElemOptions, PairOptions, parse
from metric_learning.data.sources import PictureSet, Sample
from metric_learning.embedder import saved_group_means
from metric_learning.evaluate import LEVELS, Embedded, rejected_by_group, verification
from metric_learning.files import read_tensors
from metric_learning.losses import element_loss
from metric_learning.stages import grouping

AUTO = ["--loss_name=arcmargin", "--group_margins=auto"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    with working_in(tmp_path_factory.mktemp("groups")) as here:
        cli_cases.races(Path("races"))
        cli_cases.folders(Path("folders"))
        return here


def elem(place: Path, *typed: str, data: str = "races") -> Said:
    with working_in(place):
        return run("train_elem", f"--data_dir={data}", "--test_classes=0", "--val_classes=6", "--threads=1", *typed)


# ---- options


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--balance=group"], "Did you mean 'groups'?"),
        (["--group_margins=0.1"], "African:0.1"),
        (["--group_margins=:0.1"], "African:0.1"),
        (["--group_margins=a:x"], "African:0.1"),
        (["--group_margins=a:nan"], "--group_margins of a"),
        (["--group_margins=a:2"], "--group_margins of a must be at least -1 and at most 1"),
        (["--group_margins=a:0.1,a:0.2"], "names 'a' twice"),
        (["--group_margins=a:0.1,"], "African:0.1"),
        (["--group_margins="], "--group_margins is empty"),
        (["--balance_power=0.5"], "no meaning without --balance=groups"),
        (["--balance=groups", "--balance_power=2"], "--balance_power must be"),
        (["--group_margin_rate=0.5"], "no meaning without --group_margins=auto"),
        (["--group_margins=a:0.1", "--group_margin_max=0.5"], "no meaning without --group_margins=auto"),
        (["--group_margins=auto", "--group_margin_max=-1"], "--group_margin_max must be at least 0"),
        (["--group_margins=auto", "--group_margin_rate=nan"], "--group_margin_rate must be"),
    ],
)
def test_options_that_cannot_be(typed: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(ElemOptions, typed)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_was_typed_for_each_group() -> None:
    assert parse(ElemOptions, ["--group_margins= b c : -0.1, a:1e-2"]).fixed_margins() == {"b c": -0.1, "a": 0.01}
    assert parse(ElemOptions, ["--group_margins=a:b:0.5"]).fixed_margins() == {"a:b": 0.5}
    assert parse(ElemOptions, AUTO).fixed_margins() == {} and parse(ElemOptions, AUTO).adapts_margins


@pytest.mark.parametrize("typed", [[], ["--loss_name=quadruplet_full", "--mining=given"]])
def test_ready_made_tuples_are_not_balanced(typed: list[str]) -> None:
    with pytest.raises(UserError, match="needs batches of classes"):
        parse(PairOptions, ["--balance=groups", *typed])
    parse(PairOptions, ["--balance=groups", "--mining=batch_hard"])


@pytest.mark.parametrize(
    ("data", "typed", "words"),
    [
        ("folders", ["--balance=groups"], ["--balance=groups needs a group", "this data has none"]),
        ("folders", AUTO, ["--group_margins=auto needs a group", "this data has none"]),
        ("races", ["--group_margins=African:0.1"], ["Softmax has no margin that can differ"]),
        ("races", ["--loss_name=sphereface", "--group_margins=auto"], ["SphereFace has no margin"]),
        ("races", ["--loss_name=arcmargin", "--group_margins=Afrikan:0.1"], ["Did you mean 'African'?"]),
        ("races", [*AUTO, "--val_classes=0"], ["needs validation classes of 2 or more", "no group"]),
        ("races", [*AUTO, "--val_classes=1"], ["needs validation classes of 2 or more", "1 classes of African"]),
    ],
)
@pytest.mark.sweep
def test_data_and_losses_that_do_not_fit_are_refused_before_there_is_a_run(place, data, typed, words) -> None:
    refused(elem(place, *typed, "--model_save_dir=refused", data=data), *words)
    assert not list((place / "refused").glob("elem-*"))


def test_pairs_of_impossible_shares(place) -> None:
    with working_in(place):
        typed = ["--data_dir=races", "--loss_name=eml", "--balance=groups", "--pretrained_model=none"]
        refused(run("train_pair", *typed, "--train_batch_size=8"), "must be a multiple of 6", "try 6")
        refused(run("train_pair", *typed, "--train_batch_size=24"), "'", "lower it to at most")
        refused(
            run("train_pair", *typed[:2], *typed[2:], "--train_batch_size=6", "--data_dir=folders"), "this data has"
        )


# ---- runs


@pytest.mark.slow
def test_balanced_and_fixed_runs_say_what_they_do(place) -> None:
    fixed = ["--loss_name=amsoftmax", "--group_margins=African:0.1,Asian:-0.05", "--balance=groups"]
    said = elem(place, *fixed, "--model_save_dir=fixed", "--val_classes=0")
    assert said.status == 0, said.err
    assert "equal shares of 3 groups in every batch (training pictures: African 20, Asian 20, Caucasian 20)" in said.out
    assert "Margins by group: African +0.1000, Asian -0.0500, Caucasian +0.0000." in said.out
    assert "group margins" not in said.out  # those that do not move are said once
    with working_in(place):
        typed = ["--data_dir=races", "--loss_name=eml", "--balance=groups", "--train_batch_size=6"]
        said = run("train_pair", *typed, "--pretrained_model=none", "--test_classes=0", "--val_classes=0")
    assert said.status == 0, said.err
    assert "--balance=groups: 1 classes of each of African, Asian, Caucasian." in said.out


@pytest.mark.slow
def test_eight_steps_are_four_and_four(place) -> None:
    loss = "curricularface"  # which has a buffer of its own
    steps = ["--test_iter_step=4", "--save_iter_step=4", "--lr=0.05", "--onednn=False", "--precision=float32"]
    typed = [
        *AUTO[1:],
        "--model=ResNet18",
        f"--loss_name={loss}",
        "--balance=groups",
        "--group_margin_rate=0.5",
        *steps,
    ]
    whole = elem(place, *typed, "--total_iter_num=8", f"--model_save_dir=whole-{loss}")
    assert whole.status == 0, whole.err
    assert "step 8: group margins African" in whole.out and "(FRR at FAR 0.1: African" in whole.out
    first = elem(place, *typed, "--total_iter_num=4", f"--model_save_dir=halves-{loss}")
    assert first.status == 0, first.err
    [folder] = (place / f"halves-{loss}").glob("elem-*")
    with working_in(place):
        second = run("train_elem", f"--checkpoint={folder}", "--total_iter_num=8", small=False)
    assert second.status == 0, second.err
    assert "Resumed at step 4" in second.out
    ends = [
        read_tensors(next((place / f"{name}-{loss}").glob("elem-*/checkpoints/latest.safetensors")))[0]
        for name in ("whole", "halves")
    ]
    equal_arrays(*ends)
    offsets = ends[0]["loss.offsets"]
    assert 0 < np.abs(offsets).max() <= np.float32(0.1) and len(offsets) == 3


# ---- the means of the groups


@pytest.fixture(scope="module")
def kept(place) -> Path:
    """A run that keeps the means of its groups."""
    made = elem(place, "--group_means=True", "--model_save_dir=means", "--loss_name=arcmargin", "--onednn=False")
    assert made.status == 0, made.err
    [folder] = (place / "means").glob("elem-*")
    return folder.resolve()


@pytest.mark.slow
def test_means_are_kept_and_taken_off(place, kept) -> None:
    means = saved_group_means(kept / "best.safetensors")
    assert means is not None and means.names == ("African", "Asian", "Caucasian")
    with working_in(place):
        flags = ["--data_dir=races", "--split=all", "--fars=0.1", f"--pretrained_model={kept}", "--precision=float32"]
        said = [run("eval", *flags, f"--group_means={on}", f"--output={on}.json") for on in (True, False)]
        assert [one.status for one in said] == [0, 0], said[0].err + said[1].err
        less, plain = (json.loads(Path(f"{on}.json").read_text()) for on in (True, False))
        embedded = run("infer", *flags[:1], *flags[3:], "--dataset=groups", "--output=all.npz")
        assert embedded.status == 0, embedded.err
        with np.load("all.npz") as file:
            x, names = file["embeddings"], [Path(path).parts[-3] for path in file["paths"]]
            labels = np.unique([Path(path).parent.name for path in file["paths"]], return_inverse=True)[1]
    assert "taken off pairs: African, Asian, Caucasian" in said[0].out and "taken off" not in said[1].out
    assert "fitted less the means of the groups" in said[1].out and "fitted less" not in said[0].out
    assert less["retrieval"] == plain["retrieval"]  # pictures of all groups are searched: nothing is taken off
    for found, values in ((less, means.taken_off(x, names)), (plain, x)):
        expected = verification(Embedded(values, labels, np.array(names), []), [0.1])
        for group, result in expected.groups.items():
            point = found["verification"]["groups"][group]["points"][0]
            assert point["threshold"] == pytest.approx(result.points[0].threshold, abs=1e-4), group


@pytest.mark.slow
def test_pairs_of_a_group_are_compared_less_its_mean(place, kept) -> None:
    means = saved_group_means(kept / "best.safetensors")
    with working_in(place):
        a, b = sorted(map(str, Path("races/Asian").rglob("*.*")))[:2]
        use = [f"--pretrained_model={kept}", "--precision=float32"]
        one = run("infer", *use, "--pair", a, b, "--group=Asian")
        assert one.status == 0, one.err
        Path("one.csv").write_text(f"a,b,group\n{a},{b},Asian\n{a},{b},African\n")
        assert run("infer", *use, "--pairs=one.csv", "--output=scores.csv").status == 0
        rows = [line.split(",") for line in Path("scores.csv").read_text().splitlines()[1:]]
        assert run("infer", *use, "--input=races/Asian", "--output=x.npz").status == 0
        with np.load("x.npz") as file:
            place_of = {str(path): i for i, path in enumerate(file["paths"])}
            x = file["embeddings"][[place_of[a], place_of[b]]]
        u, v = means.taken_off(x, ["Asian", "Asian"])
        cosine = float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
        assert float(one.out.split("cosine ")[1].split()[0]) == pytest.approx(cosine, abs=1e-3)
        assert float(rows[1][3]) == pytest.approx(cosine, abs=1e-3)  # a picture has one group: that of its first pair
        assert run("infer", *use, "--query", a, "--output=x.npz").status == 0


def test_means_need_groups(place) -> None:
    refused(elem(place, "--group_means=True", data="folders"), "--group_means needs a group", "this data has none")


# ---- the level


def naive_level(embeddings, labels, groups):
    """FAR and FRR by group at one threshold, in loops."""
    scores: dict[str, tuple[list[float], list[float]]] = {str(group): ([], []) for group in groups}
    for i in range(len(labels)):
        for j in range(i):
            if groups[i] == groups[j]:
                a, b = embeddings[i].astype(np.float64), embeddings[j].astype(np.float64)
                cosine = float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))
                scores[str(groups[i])][int(labels[i] != labels[j])].append(cosine)
    negatives = sorted((score for _, other in scores.values() for score in other), reverse=True)
    for far in (0.001, 0.01, 0.1):
        accepted = int(round(far * 1000) * len(negatives) // 1000)
        if accepted:
            limit = negatives[accepted]  # the first that must not be accepted
            frr = {g: sum(s <= limit for s in same) / len(same) for g, (same, _) in scores.items() if same}
            return far, frr
    return None, {}


@pytest.mark.parametrize(("people", "pictures"), [((5, 9, 2), 5), ((3, 3, 1), 4), ((12, 16), 5), ((2, 1), 2)])
def test_the_level_against_its_twin(people: tuple[int, ...], pictures: int) -> None:
    rng = np.random.default_rng(len(people))
    labels = np.repeat(np.arange(sum(people)), pictures)
    groups = np.repeat(np.repeat([f"g{i}" for i in range(len(people))], people), pictures)
    embeddings = (rng.normal(size=(sum(people), 6))[labels] + 0.8 * rng.normal(size=(len(labels), 6))).astype("float32")
    far, frr = rejected_by_group(Embedded(embeddings, labels, groups, [""] * len(labels)))
    expected_far, expected = naive_level(embeddings, labels, groups)
    assert far == expected_far and (far is None or far in LEVELS)
    assert frr == pytest.approx(expected)


def test_a_group_without_true_pairs_has_no_rate() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([*np.repeat(np.arange(5), 4), 5, 6, 7])
    groups = np.array(["a"] * 20 + ["b"] * 3)
    found = Embedded(rng.normal(size=(23, 4)).astype("float32"), labels, groups, [""] * 23)
    assert set(rejected_by_group(found)[1]) == {"a"}


def test_a_training_group_without_validation_classes_is_told() -> None:
    train = PictureSet.of(Sample(f"{i}", f"{i // 2}", "abc"[i // 2 % 3]) for i in range(12))
    val = PictureSet.of(Sample(f"v{i}", f"v{i // 2}", "ab"[i // 2 % 2]) for i in range(8))
    config = parse(ElemOptions, AUTO)
    loss, notes = grouping.with_group_margins(config, element_loss("arcmargin", 6, 4), train)
    assert notes == ["Margins move with the validation FRR, by up to 0.1: a +0.0000, b +0.0000, c +0.0000."]
    assert grouping.check_validation(config, loss, val) == [
        "No validation classes of c: the margin stays as it is there."
    ]
    assert grouping.check_validation(parse(ElemOptions, []), element_loss("arcmargin", 6, 4), PictureSet.of([])) == []
