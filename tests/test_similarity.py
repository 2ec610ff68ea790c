"""From training to a score in 0..1: what is stored with the weights, and what the commands say and write of it."""

import contextlib
import csv
import io
import json
import shutil
from pathlib import Path

import cli_cases
import numpy as np
import pytest
import safetensors.numpy
from cli_cases import leftovers, refused, run, working_in
from test_compare import SPEC, Means

from metric_learning.checks import UserError
from metric_learning.config import InferOptions, parse
from metric_learning.data.loader import BadPictures
from metric_learning.embedder import saved_calibration
from metric_learning.extract import Reader, embed
from metric_learning.files import read_metadata, read_tensors, write_tensors
from metric_learning.metrics.calibration import calibrate_all_pairs
from metric_learning.metrics.group_means import GroupMeans
from metric_learning.runs import Run
from metric_learning.stages import calibrating, scoring

A, B = "data/African/person0/0.jpg", "data/African/person3/0.jpg"
TRAINING = ["--data_dir=data", "--val_classes=6", "--test_classes=2", "--train_batch_size=4"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working folder with faces in three groups, one run whose similarity is fitted, and lists of pairs."""
    with working_in(tmp_path_factory.mktemp("similarity")) as here:
        cli_cases.races(Path("data"))
        said = run("train_elem", *TRAINING)
        assert said.status == 0, said.err
        Path("said.txt").write_text(said.out)
        names = sorted(str(path.relative_to("data")) for path in Path("data").rglob("*.jpg"))
        rows = [(names[i], names[-1 - i], names[i].split("/")[0]) for i in range(0, 30, 3)]
        rows.insert(3, rows[0])  # a pair twice
        with open("asked.csv", "w", newline="") as file:
            csv.writer(file).writerows([("a", "b"), *(row[:2] for row in rows)])
        with open("grouped.csv", "w", newline="") as file:
            csv.writer(file).writerows(
                [("b", "group", "a"), *((b, g, a) for a, b, g in rows), (A[5:], "Martian", B[5:])]
            )
        return here


@pytest.fixture
def here(place):
    with working_in(place):
        yield place


def weights() -> Path:
    (folder,) = Path("output").iterdir()
    return Run(folder).best


def scores(name: str) -> list[dict[str, str]]:
    with open(name, newline="") as file:
        return list(csv.DictReader(file))


def uncalibrated() -> str:
    """The same weights from elsewhere, so to say: without what was fitted. As an option."""
    arrays, metadata = read_tensors(weights())
    write_tensors("plain.safetensors", arrays, {name: metadata[name] for name in ("embedder", "about")})
    return "--pretrained_model=plain.safetensors"


# ---- what is stored


@pytest.mark.slow
def test_training_ends_with_a_fit_on_the_validation_classes(here):
    found = saved_calibration(weights())
    said = Path("said.txt").read_text()
    assert f"Similarity: 0.5 lies at cosine {found.point.threshold:.4f}" in said
    assert "fitted on all unordered pairs within each group of the validation classes" in said
    val = json.loads((weights().parent / "classes.json").read_text())["val"]
    groups = [int(name.removeprefix("person").split("/")[-1].removeprefix("person")) % 3 for name in val]
    sizes = np.bincount(groups)
    assert len(val) == 6 and found.point.positives == 6 * 10
    assert found.point.negatives == sum(int(size) * (int(size) - 1) // 2 * 25 for size in sizes)
    assert found.fitted["flip_test"] is False and found.fitted["step"] == read_metadata(weights())["about"]["step"]
    assert {"date", "data", "wanted_far", "picture", "version"} <= found.fitted.keys()


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 100_000])
def test_metadata_that_no_reader_can_hold(text, here):
    arrays, metadata = read_tensors(weights())
    written = {name: json.dumps(value) for name, value in metadata.items()} | {"calibration": text}
    Path("deep.safetensors").write_bytes(safetensors.numpy.save(arrays, written))
    with pytest.raises(UserError, match=r"deep\.safetensors .*Was it edited\?"):
        saved_calibration("deep.safetensors")


@pytest.mark.slow
def test_a_resumed_run_does_not_change_it(here):
    shutil.copytree("output", "again")
    (folder,) = Path("again").iterdir()
    before = (folder / "best.safetensors").read_bytes()
    assert run("train_elem", f"--checkpoint={folder}", small=False).status == 0
    assert (folder / "best.safetensors").read_bytes() == before
    arrays, metadata = read_tensors(folder / "best.safetensors")
    write_tensors(folder / "best.safetensors", arrays, {name: metadata[name] for name in ("embedder", "about")})
    assert run("train_elem", f"--checkpoint={folder}", small=False).status == 0
    assert saved_calibration(folder / "best.safetensors") == saved_calibration(weights())
    shutil.rmtree("again")


@pytest.mark.slow
def test_without_negatives_or_validation_classes_nothing_is_stored(here):
    for classes, words in (("1", "stays uncalibrated. Too few pairs"), ("0", "No validation classes: the similarity")):
        said = run("train_elem", "--data_dir=data", f"--val_classes={classes}", "--model_save_dir=none")
        assert said.status == 0 and words in said.out, said
        (folder,) = Path("none").iterdir()
        assert saved_calibration(folder / "best.safetensors") is None
        shutil.rmtree("none")


@pytest.mark.parametrize(
    "damage", [{"slope": -1.0}, {"slope": float("nan")}, {"point": 3}, {"groups": {"a": {}}}, {"fitted": None}, None]
)
def test_an_edited_calibration_is_refused(damage, here):
    arrays, metadata = read_tensors(weights())
    changed = "words" if damage is None else metadata["calibration"] | damage
    write_tensors("edited.safetensors", arrays, metadata | {"calibration": changed})
    with pytest.raises(UserError, match=r"edited\.safetensors .*Was it edited\?.*--calibrate") as caught:
        saved_calibration("edited.safetensors")
    assert "\n" not in str(caught.value)
    if damage is None:
        refused(run("infer", "--pair", A, B, "--pretrained_model=edited.safetensors"), "Was it edited?")


# ---- the judge of two pictures and of a list, over a network of no layers


def reader(flip_test: bool = False) -> Reader:
    return Reader(SPEC, 4, 0, flip_test, quiet=True)


@pytest.fixture(scope="module")
def fitted(place):
    """The calibration of `Means` on all the faces, and how it was made."""
    with working_in(place):
        paths = sorted(map(str, Path("data").rglob("*.jpg")))
        _, rows = embed(Means(), paths, reader(), BadPictures(len(paths)))
        people, groups = (np.array([Path(path).parts[place] for path in paths]) for place in (2, 1))
        made = calibrate_all_pairs(rows, people, groups, 0.02)
        return made.with_notes(**calibrating.notes("these pairs", "data", reader(), Path("no.pt"), 0.02))


def judged(calibration, *typed: str, means: GroupMeans | None = None) -> str:
    """What infer says, with this calibration and `Means` for a network."""
    config = parse(InferOptions, [*map(str, typed)])
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        judge = scoring.judge(config, calibration, reader(config.flip_test), means)
        if config.pair:
            scoring.score_pair(config, config.pair, judge, Means(), reader())
        else:
            eyes = Means()
            eyes.way = "by hand"
            scoring.score_list(config, config.pairs, judge, eyes, reader(), None)
    return out.getvalue()


def test_two_pictures_at_the_stored_threshold(here, fitted):
    said = judged(fitted, "--pair", A, B).splitlines()
    cosine = float(said[0].removeprefix("cosine "))
    assert float(said[1].split()[1]) == pytest.approx(float(fitted.similarity(cosine)), abs=1e-2)
    assert f"0.5 lies at cosine {fitted.point.threshold:.4f}" in said[1] and "uncalibrated" not in said[1]
    verdict = "same" if cosine >= fitted.point.threshold else "different"
    assert said[2].startswith(
        f"{verdict}, at the stored threshold, {fitted.point.threshold:.4f} (FAR 2e-2, measured on"
    )
    assert f"on {fitted.point.negatives:,} negative pairs; fitted on these pairs" in said[2]
    same = judged(fitted, "--pair", A, A).splitlines()
    assert same[0] == "cosine 1.0000" and same[2].startswith("same, ")


def test_a_group_has_a_threshold_of_its_own(here, fitted):
    assert set(fitted.groups) == {"African", "Asian", "Caucasian"}
    own = fitted.groups["African"].threshold
    assert own != fitted.point.threshold
    said = judged(fitted, "--pair", A, B, "--group=African").splitlines()
    assert f"0.5 lies at cosine {own:.4f}" in said[1] and f"the stored threshold of African, {own:.4f}" in said[2]
    with pytest.raises(UserError, match=r"--group must be one of .* Did you mean 'African'\?"):
        judged(fitted, "--pair", A, B, "--group=Africa")
    with pytest.raises(UserError, match=r"no operating points.*--calibrate"):
        judged(None, "--pair", A, B, "--group=African")


def test_a_group_that_only_the_means_know(here, fitted):
    """Its mean is taken off; the threshold is the common one, if there is any."""
    size = embed(Means(), [A], reader(), BadPictures(1))[1].shape[1]
    means = GroupMeans(("African", "Martian"), np.linspace(-0.1, 0.1, 2 * size, dtype=np.float32).reshape(2, size))
    bare = judged(None, "--pair", A, B, "--group=African", means=means).splitlines()
    assert bare[2].startswith("no threshold")
    assert bare[0] != judged(None, "--pair", A, B, "--group=Martian", means=means).splitlines()[0]
    said = judged(fitted, "--pair", A, B, "--group=Martian", means=means).splitlines()
    assert f"0.5 lies at cosine {fitted.point.threshold:.4f}" in said[-2]
    assert f"the stored threshold, {fitted.point.threshold:.4f}" in said[-1]
    said = judged(fitted, "--pairs=asked.csv", "--data_dir=data", "--output=m.csv", "--group=Martian", means=means)
    assert "Same or not is at the stored threshold, " in said
    assert {row["threshold"] for row in scores("m.csv")} == {f"{fitted.point.threshold:.9g}"}
    with pytest.raises(UserError, match=r"--group must be one of African, Martian; .*Did you mean 'Martian'\?"):
        judged(None, "--pair", A, B, "--group=Martia", means=means)


def test_without_a_fit_it_says_so(here):
    said = judged(None, "--pair", A, B).splitlines()
    cosine = float(said[0].removeprefix("cosine "))
    assert float(said[1].split()[1]) == pytest.approx((1 + cosine) / 2, abs=1e-3) and "uncalibrated" in said[1]
    assert said[2].startswith("no threshold") and "--calibrate" in said[2]
    said = judged(None, "--pair", A, A, "--threshold=0.25").splitlines()
    assert "uncalibrated" in said[1] and said[2].startswith("same, at --threshold=0.25 (typed")


def test_embeddings_made_in_another_way_are_warned_of(here, fitted):
    assert calibrating.mismatches(fitted, reader()) == []
    assert "fitted with --flip_test=False, not True" in judged(fitted, "--pair", A, B, "--flip_test=True")
    other = Reader(type(SPEC)((3, 16, 16), (0.5,) * 3, (0.5,) * 3, "BGR", test_crop=1.0))
    assert "another shape" in calibrating.mismatches(fitted, other)[0]
    assert calibrating.mismatches(fitted.with_notes(flip_test=None, picture=None), other) == []


# ---- a list


def test_a_list_is_scored_row_by_row_in_its_order(here, fitted):
    said = judged(fitted, "--pairs=asked.csv", "--data_dir=data", "--output=out/scores.csv")
    assert "11 pairs of 20 pictures" in said and "Same or not is at the stored threshold" in said
    rows, asked = scores("out/scores.csv"), scores("asked.csv")
    assert list(rows[0]) == ["a", "b", "similarity", "cosine", "same", "threshold"]
    assert [(row["a"], row["b"]) for row in rows] == [(row["a"], row["b"]) for row in asked]
    assert rows[0] == rows[3]
    for row in rows:
        cosine, threshold = float(row["cosine"]), float(row["threshold"])
        assert float(row["similarity"]) == pytest.approx(float(fitted.similarity(cosine)), rel=1e-3)
        assert np.float32(threshold) == np.float32(fitted.point.threshold)
        assert row["same"] == str(int(cosine >= threshold)) == str(int(float(row["similarity"]) >= 0.5))
        single = judged(fitted, "--pair", f"data/{row['a']}", f"data/{row['b']}").splitlines()[0]
        assert float(single.split()[1]) == pytest.approx(cosine, abs=1e-4)
    assert not leftovers(here)


def test_every_picture_is_embedded_once(here, fitted):
    eyes, config = Means(), parse(InferOptions, ["--pairs=asked.csv", "--data_dir=data", "--output=once.csv"])
    eyes.way = "by hand"
    scoring.score_list(config, "asked.csv", scoring.Judge(fitted), eyes, reader(), None)
    assert eyes.seen == 20


def test_pairs_of_a_group_are_judged_at_its_own_threshold(here, fitted):
    said = judged(fitted, "--pairs=grouped.csv", "--data_dir=data", "--output=groups.csv")
    rows = scores("groups.csv")
    assert list(rows[0])[-1] == "group" and len(rows) == 12 and "the stored threshold of African" in said
    assert rows[-1]["group"] == "Martian" and "Same or not is at the stored threshold, " in said
    for row in rows:
        point = fitted.groups.get(row["group"], fitted.point)
        own = row["group"] if row["group"] in fitted.groups else None
        assert np.float32(row["threshold"]) == np.float32(point.threshold)
        assert float(row["similarity"]) == pytest.approx(float(fitted.similarity(float(row["cosine"]), own)), rel=1e-3)
    with pytest.raises(UserError, match="Leave it out"):
        judged(fitted, "--pairs=grouped.csv", "--data_dir=data", "--group=African")
    judged(fitted, "--pairs=asked.csv", "--data_dir=data", "--output=one.csv", "--group=African")
    assert {np.float32(row["threshold"]) for row in scores("one.csv")} == {
        np.float32(fitted.groups["African"].threshold)
    }


def test_a_typed_threshold_decides_and_is_told(here, fitted):
    said = judged(fitted, "--pairs=grouped.csv", "--data_dir=data", "--output=typed.csv", "--threshold=-1")
    assert said.count("Same or not is at --threshold=-1 (typed") == 1
    assert {(row["same"], row["threshold"]) for row in scores("typed.csv")} == {("1", "-1")}


def test_a_list_without_a_fit_has_no_number_that_looks_fitted(here):
    assert "uncalibrated" in judged(None, "--pairs=asked.csv", "--data_dir=data", "--output=plain.csv")
    for row in scores("plain.csv"):
        assert row["same"] == row["threshold"] == "" and "similarity" not in row
        assert float(row["similarity_uncalibrated"]) == pytest.approx((1 + float(row["cosine"])) / 2, abs=1e-6)


def test_lists_with_answers_are_scored_too(here, fitted):
    rows = [f"African/person{3 * i}/0.jpg,African/person{3 * i}/1.jpg,1" for i in range(4)]
    Path("answers.csv").write_text("a,b,same\n" + "\n".join(rows) + "\n")
    judged(fitted, "--pairs=answers.csv", "--data_dir=data", "--output=answered")
    assert [row["a"] for row in scores("answered.csv")] == [row.split(",")[0] for row in rows]
    for i in range(2):
        for n in (1, 2):
            cli_cases.write_picture(Path(f"lfw/p{i}/p{i}_000{n}.png"), i, n)
    Path("lfw/one.txt").write_text("1\np0\t1\t2\np0\t1\tp1\t2\n")
    judged(fitted, "--pairs=lfw/one.txt", "--output=lfw.csv")
    assert [Path(row["b"]).name for row in scores("lfw.csv")] == ["p0_0002.png", "p1_0002.png"]


def test_pictures_that_can_not_be_read(here, fitted):
    Path("gone.csv").write_text("a,b\n" + f"{A},{B}\n{A},gone.jpg\n{B},{A}\n")
    Path("kept.csv").write_text("older")
    with pytest.raises(UserError, match=r"1 of 3 pictures.*gone\.jpg.*--max_bad_pictures|--max_bad_pictures.*gone"):
        judged(fitted, "--pairs=gone.csv", "--output=kept.csv")
    assert Path("kept.csv").read_text() == "older" and not leftovers(here)
    said = judged(fitted, "--pairs=gone.csv", "--output=kept.csv", "--max_bad_pictures=0.5")
    assert "Can't be read: gone.jpg" in said and "WARNING: 1 of 3 pairs" in said
    rows = scores("kept.csv")
    assert [row["similarity"] == "" for row in rows] == [False, True, False]
    assert rows[1]["cosine"] == rows[1]["same"] == "" and rows[0]["cosine"] == rows[2]["cosine"]


def test_a_file_that_can_not_be_finished_is_not_begun(here, fitted, monkeypatch):
    Path("kept.csv").write_text("older")
    monkeypatch.setattr(scoring, "_cells", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        judged(fitted, "--pairs=asked.csv", "--data_dir=data", "--output=kept.csv")
    assert Path("kept.csv").read_text() == "older" and not leftovers(here)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--pairs=nope.csv"], "nope.csv"),
        (["--pairs=empty.csv"], "empty.csv lists no pairs"),
        (["--pairs=header.csv"], r"header.csv:1: .*a,b\[,group\]"),
        (["--pairs=race.csv"], "race.csv:1: .*'groups'"),
        (["--pairs=half.csv"], "half.csv:3: .*two pictures"),
        (["--pairs=asked.csv", "--pair", A, B], "different jobs"),
        (["--threshold=0.5"], "--pair or --pairs"),
        (["--group=African"], "--pair or --pairs"),
        (["--pair", A, B, "--threshold=1.5"], "--threshold must be"),
        (["--pairs=asked.csv", "--data_dir=data", "--output=asked.csv"], "the list of pairs itself"),
    ],
)
def test_what_infer_refuses(typed, words, here, fitted):
    for name, text in (
        ("empty", "a,b\n"),
        ("header", "x,y\n1,2\n"),
        ("race", "a,b,groups\n1,2,3\n"),
        ("half", "a,b\n1,2\n3,\n"),
    ):
        Path(f"{name}.csv").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        judged(fitted, *typed)
    assert "\n" not in str(caught.value)


# ---- infer, from the command line


@pytest.mark.slow
def test_infer_from_the_command_line(here):
    found = saved_calibration(weights())
    said = run("infer", "--pair", A, B)
    assert said.status == 0 and f"the stored threshold, {found.point.threshold:.4f}" in said.out
    said = run("infer", "--pairs=grouped.csv", "--data_dir=data", "--output=cli.csv", "--batch_size=7")
    assert said.status == 0 and said.err == "" and len(scores("cli.csv")) == 12


# ---- eval


@pytest.mark.slow
def test_eval_says_what_the_stored_threshold_does(here):
    said = run("eval", "--split=val", "--output=val.json")
    found = saved_calibration(weights())
    assert f"At the stored threshold {found.point.threshold:.4f} (fitted for FAR " in said.out, said
    stored = json.loads(Path("val.json").read_text())["stored_threshold"]
    assert stored["pooled"]["far"] <= found.point.far and stored["pooled"]["threshold"] == found.point.threshold
    assert set(stored["own"]) == set(found.groups)
    said = run("eval", "--output=plain.json", uncalibrated(), "--data_dir=data")
    assert "stored threshold" not in said.out and json.loads(Path("plain.json").read_text())["stored_threshold"] is None


@pytest.mark.slow
def test_weights_from_elsewhere_are_calibrated_by_eval(here):
    rows = [f"African/person{3 * i}/0.jpg,African/person{3 * i}/{n},1,x" for i in range(4) for n in ("1.jpg", "2.jpg")]
    rows += [
        f"African/person{3 * i}/{n}.jpg,African/person{(3 * i + 3) % 12}/1.jpg,0,x" for i in range(4) for n in (0, 3)
    ]
    Path("pairs.csv").write_text("a,b,same,group\n" + "\n".join(rows) + "\n")
    typed = ["--pairs=pairs.csv", "--data_dir=data", "--output=p.json", uncalibrated(), "--flip_test=True"]
    said = run("eval", *typed, "--calibrate=fitted", "--calibrate_far=0.25")
    assert said.status == 0 and "no test any more" in said.out, said
    found = saved_calibration("fitted.safetensors")
    assert (found.point.positives, found.point.negatives, found.point.far) == (8, 8, 0.25)
    assert found.fitted["flip_test"] is True and found.fitted["pairs"] == "the 16 pairs of pairs.csv"
    before, after = read_tensors("plain.safetensors")[0], read_tensors("fitted.safetensors")[0]
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
    assert run("infer", "--pair", A, B, "--pretrained_model=fitted.safetensors").out.count("WARNING") == 1


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--calibrate=x", "--templates=t.csv", "--pairs=pairs.csv"], "--templates"),
        (["--calibrate_far=0.1"], "--calibrate"),
        (["--calibrate=x", "--calibrate_far=2"], "--calibrate_far"),
        (["--calibrate="], "--calibrate is empty"),
    ],
)
def test_what_eval_refuses_of_a_fit(typed, words, here):
    refused(run("eval", *typed), words)
