"""--task=classify from end to end: training, folds, figures, votes, and the csv that is handed in."""

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_cases import refused, run
from small_runs import Training, equal_arrays, write_pictures

from metric_learning.data.predictions import Predictions, read_predictions, write_predictions
from metric_learning.files import read_metadata, read_tensors
from metric_learning.stages.voting import _named

pytestmark = pytest.mark.filterwarnings("ignore:When training")

QUICK = ("--task=classify", "--epochs=4", "--min_crop_area=1", "--model=SmallCNN", "--image_shape=3,32,32")
QUICK += (
    "--train_batch_size=8",
    "--num_workers=1",
    "--use_gpu=False",
    "--lr=0.1",
    "--warmup_steps=0",
    "--display_iter_step=3",
)
TYPED = ("--train_list=train.csv", "--test_list=test.csv")


def faces(folder: Path, train: int = 48, test: int = 12) -> Path:
    """Pictures whose label is their colour, red or blue; two races; the lists in an order of their own."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    numbers = rng.permutation(train + test)
    rows = []
    for number in numbers:
        label = int(number % 2)
        colour = np.array([180, 60, 60] if label else [60, 60, 180])
        picture = np.clip(colour + rng.normal(0, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number}.jpg"), picture)
        rows.append(f"{number},{label},{'Black' if number % 3 else 'White'}")
    for name, part in (("train", rows[:train]), ("test", rows[train:])):
        (folder / f"{name}.csv").write_text("\n".join(["id,label,race", *part]) + "\n")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return faces(tmp_path_factory.mktemp("attributes") / "faces")


def trained(data, output, *more: str):
    said = run("train_elem", f"--data_dir={data}", *TYPED, *QUICK, f"--model_save_dir={output}", *more, small=False)
    assert said.status == 0, said
    return said, max(Path(output).glob("elem-*"), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two runs of the same division, a softmax and an arcmargin."""
    output = tmp_path_factory.mktemp("runs")
    first, second = (trained(data, output, f"--loss_name={name}") for name in ("softmax", "arcmargin"))
    return output, first, second


def ids(path: Path) -> list[str]:
    return [row["id"] for row in csv.DictReader(path.read_text().splitlines())]


def accuracy(path: Path) -> float:
    return json.loads(path.read_text())["all"]["accuracy"]


# ---- one classifier


def test_training_says_how_right_it_is(runs, data):
    _, (said, folder), _ = runs
    assert "4 epochs of 5 steps: 20 steps" in said.out and "step 5: val accuracy" in said.out
    assert "Classification (test), 2 classes" in said.out and "Black" in said.out and "White" in said.out
    assert accuracy(folder / "results.json") > 0.9
    assert "WARNING" not in said.out
    told = read_predictions(folder / "val_predictions.csv")
    assert told.classes == ["0", "1"] and len(told.paths) == 10
    right = np.mean([told.classes[i] for i in told.probabilities.argmax(axis=1)] == np.array(told.labels))
    assert read_metadata(folder / "best.safetensors")["about"]["val"]["val accuracy"] == pytest.approx(right, abs=0.05)


@pytest.mark.slow
def test_eval_finds_what_training_found(runs, data, tmp_path):
    _, (_, folder), _ = runs
    said = run("eval", f"--pretrained_model={folder}", f"--output={tmp_path / 'e.json'}", f"--data_dir={data}")
    assert said.status == 0, said
    found, trained_with = (json.loads(path.read_text()) for path in (tmp_path / "e.json", folder / "results.json"))
    assert found["all"] == trained_with["all"] and found["groups"].keys() == {"Black", "White"}
    assert (tmp_path / "e.png").stat().st_size > 1000
    whole = run("eval", f"--pretrained_model={folder}", f"--output={tmp_path / 'a.json'}", "--split=all")
    assert whole.status == 0 and json.loads((tmp_path / "a.json").read_text())["all"]["count"] == 60
    flipped = run("eval", f"--pretrained_model={folder}", f"--output={tmp_path / 'f.json'}", "--flip_test=True")
    assert flipped.status == 0 and accuracy(tmp_path / "f.json") > 0.9


def test_the_answer_has_the_ids_of_the_list_in_its_order(runs, data, tmp_path):
    _, (_, folder), _ = runs
    answer = tmp_path / "submission.csv"
    said = run("infer", f"--pretrained_model={folder}", f"--data_dir={data}", *TYPED, f"--output={answer}")
    assert said.status == 0, said
    assert answer.read_text().splitlines()[0] == "id,label" and ids(answer) == ids(data / "test.csv")
    truth = {row["id"]: row["label"] for row in csv.DictReader((data / "test.csv").read_text().splitlines())}
    rows = list(csv.DictReader(answer.read_text().splitlines()))
    assert np.mean([truth[row["id"]] == row["label"] for row in rows]) == accuracy(folder / "results.json")
    again = run("infer", f"--pretrained_model={folder}", f"--output={answer}", "--batch_size=5", "--probabilities=True")
    assert again.status == 0
    shown = list(csv.DictReader(answer.read_text().splitlines()))
    assert [row["label"] for row in shown] == [row["label"] for row in rows]
    for row in shown:
        assert float(row["p(0)"]) + float(row["p(1)"]) == pytest.approx(1, abs=1e-5)
        assert row["label"] == str(int(float(row["p(1)"]) > float(row["p(0)"])))


def test_a_list_without_labels_is_answered_and_not_measured(runs, data, tmp_path):
    _, (_, folder), _ = runs
    (tmp_path / "q.csv").write_text("id\n3\n1\n")
    said = run(
        "infer", f"--pretrained_model={folder}", f"--input={tmp_path / 'q.csv'}", f"--output={tmp_path / 'a.csv'}"
    )
    assert said.status == 0 and ids(tmp_path / "a.csv") == ["3", "1"], said
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "test.csv").write_text("id\n3\n1\n")
    moved = (f"--data_dir={tmp_path / 'data'}", *TYPED)
    refused(run("eval", f"--pretrained_model={folder}", *moved), "no labels", "infer.py")


def test_a_missing_or_broken_picture_is_named_or_left_out(runs, data, tmp_path):
    _, (_, folder), _ = runs
    shutil.copytree(data, tmp_path / "data")
    first, second = ids(data / "test.csv")[:2]
    typed = (f"--pretrained_model={folder}", f"--data_dir={tmp_path / 'data'}", *TYPED)
    typed += (f"--output={tmp_path / 'a.csv'}",)
    (tmp_path / "data" / "images" / f"{first}.jpg").unlink()
    refused(run("infer", *typed), "test.csv:2", f"no picture {first}.jpg", "--skip_missing=True")
    (tmp_path / "data" / "images" / f"{second}.jpg").write_bytes(b"\xff\xd8 no picture")
    assert run("infer", *typed, "--skip_missing=True").status == 2  # more than --max_bad_pictures allows
    said = run("infer", *typed, "--skip_missing=True", "--max_bad_pictures=0.5")
    assert said.status == 0 and ids(tmp_path / "a.csv") == ids(data / "test.csv")[2:], said
    assert f"{second}.jpg" in said.out
    cv2.imwrite(str(tmp_path / "data" / "images" / f"{first}.jpg"), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / "a.csv").unlink()
    refused(run("infer", *typed), f"{second}.jpg", "--skip_missing=True")
    assert not (tmp_path / "a.csv").exists()


def test_the_list_itself_is_not_written_over(runs, data):
    _, (_, folder), _ = runs
    before = (data / "test.csv").read_text()
    typed = (f"--pretrained_model={folder}", f"--data_dir={data}", *TYPED)
    refused(run("infer", *typed, f"--output={data / 'test.csv'}"), "list of pictures itself")
    assert (data / "test.csv").read_text() == before


def test_uncertain_pictures_are_a_list_and_a_sheet(runs, data, tmp_path):
    _, (_, folder), _ = runs
    typed = (f"--pretrained_model={folder}", f"--uncertain={tmp_path / 'u.csv'}")
    said = run("infer", *typed, f"--output={tmp_path / 'a.csv'}", "--uncertain_band=0.5")
    assert said.status == 0, said
    told = read_predictions(tmp_path / "u.csv")
    gaps = np.abs(told.probabilities[:, 0] - 0.5)
    assert len(told.paths) == 12 and (np.diff(gaps) >= -1e-6).all() and (tmp_path / "u.png").is_file()
    said = run("eval", *typed, f"--output={tmp_path / 'e.json'}", "--uncertain_band=0")
    assert said.status == 0 and not read_predictions(tmp_path / "u.csv").paths
    assert not (tmp_path / "u.png").exists(), "a sheet of an older list"


# ---- several classifiers


SLOW = [pytest.param(how, marks=pytest.mark.slow) for how in ("hard", "soft", "weighted --weights=fit")]


@pytest.mark.parametrize("how", ["fusion", "weighted --weights=0,3", *SLOW])
@pytest.mark.slow
def test_votes(runs, data, tmp_path, how):
    _, (_, a), (_, b) = runs
    typed = (f"--pretrained_model={a},{b}", *f"--vote={how}".split())
    said = run("eval", *typed, f"--output={tmp_path / 'e.json'}")
    assert said.status == 0, said
    about = json.loads((tmp_path / "e.json").read_text())["about"]
    assert str(a) in about["weights"] and str(b) in about["weights"] and about["vote"].startswith(how.split()[0])
    assert ("10 validation pictures" in about["vote"]) == ("f" in how.split("=")[-1] and how != "soft")
    if how.endswith("0,3"):  # the second alone
        assert accuracy(tmp_path / "e.json") == accuracy(b / "results.json")
    answer = run("infer", *typed, f"--output={tmp_path / 'a.csv'}")
    assert answer.status == 0 and ids(tmp_path / "a.csv") == ids(data / "test.csv")


@pytest.mark.slow
def test_a_vote_is_fitted_on_what_the_runs_held_out(runs, data, tmp_path):
    """Whatever is measured: with the lists that were typed the fit could be on the test itself."""
    _, (_, a), (_, b) = runs
    other = faces(tmp_path / "other", train=12, test=30)
    (other / "train.csv").unlink()
    found = []
    for typed in ([], [f"--data_dir={other}", "--train_list=test.csv", "--test_list=test.csv"]):
        said = run("eval", f"--pretrained_model={a},{b}", "--vote=fusion", f"--output={tmp_path / 'e.json'}", *typed)
        assert said.status == 0, said
        found.append(json.loads((tmp_path / "e.json").read_text())["about"]["vote"])
    assert found[0] == found[1] and "10 validation pictures" in found[0]


@pytest.mark.slow
def test_a_vote_is_never_fitted_on_data_that_was_not_held_out(data, tmp_path):
    """Where the runs' data is gone: the same data elsewhere will do, a test of the same shape will not."""
    home = shutil.copytree(data, tmp_path / "home")
    runs = [trained(home, tmp_path / "runs", f"--loss_name={name}")[1] for name in ("softmax", "arcmargin")]
    away = home.rename(tmp_path / "away")
    typed = [f"--pretrained_model={runs[0]},{runs[1]}", "--vote=weighted", "--weights=fit", *TYPED]
    typed += [f"--output={tmp_path / 'e.json'}"]
    said = run("eval", *typed, f"--data_dir={away}")
    assert said.status == 0 and "10 validation pictures" in said.out, said
    other = faces(tmp_path / "other", train=40)
    refused(run("eval", *typed, f"--data_dir={other}"), "has not the validation pictures", "type --weights")
    for name in ("train.csv", "test.csv"):
        (away / name).write_text((away / name).read_text().replace(",0,", ",9,"))
    away.rename(home)
    refused(run("eval", *typed, f"--data_dir={other}"), "has not the classes")


@pytest.mark.slow
def test_votes_that_can_not_be(runs, data, tmp_path):
    _, (_, a), (_, b) = runs
    both = f"--pretrained_model={a},{b}"
    refused(run("eval", f"--pretrained_model={a}", "--vote=hard"), "several classifiers")
    refused(run("eval", both, "--vote=weighted", "--weights=1,2,3"), "3 numbers for 2 classifiers")
    refused(run("eval", both, "--vote=weighted"), "needs --weights")
    refused(run("eval", both, "--weights=1,2"), "--vote=weighted")
    refused(run("eval", both, "--vote=weighted", "--weights=1,-2"), "0 and more")
    refused(run("eval", both, "--task=embed"), "several weights, is about classes, --task=embed about embeddings")
    one = f"--pretrained_model={a}"
    refused(run("eval", one, "--task=classify", "--calibrate=True"), "--task=classify is about classes, --calibrate")
    refused(run("infer", one, "--uncertain=3", "--pair", "x.jpg", "y.jpg"), "--uncertain is about classes, --pair")
    _, other = trained(data, tmp_path, "--val_share=0.3", "--epochs=1")
    refused(run("eval", f"--pretrained_model={a},{other}", "--vote=fusion"), "same validation pictures")
    refused(run("infer", f"--pretrained_model={a},{tmp_path / 'none'}"), "none")


def test_a_classifier_is_an_embedder_too(runs, data, tmp_path):
    _, (_, a), _ = runs
    pair = [str(data / "images" / f"{number}.jpg") for number in (1, 2)]
    said = run("infer", f"--pretrained_model={a}", "--pair", *pair)
    assert said.status == 0 and "cosine" in said.out, said
    said = run("infer", f"--pretrained_model={a}", "--task=embed", f"--output={tmp_path / 'e.npz'}")
    assert said.status == 0 and np.load(tmp_path / "e.npz", allow_pickle=False)["embeddings"].shape == (12, 2048), said
    said = run("eval", f"--pretrained_model={a}", "--task=embed", "--split=test", f"--output={tmp_path / 'e.json'}")
    assert said.status == 0 and "Recall@1" in said.out, said


def test_weights_without_classes_are_refused(data, tmp_path):
    typed = (f"--data_dir={data}", "--train_list=train.csv", "--test_classes=0", f"--model_save_dir={tmp_path}")
    assert run("train_elem", *typed).status == 0
    refused(run("eval", f"--model_save_dir={tmp_path}", "--task=classify"), "no classifier", "--task=classify")
    refused(run("infer", f"--model_save_dir={tmp_path}", "--probabilities"), "--probabilities", "Leave it out")


# ---- folds


@pytest.mark.slow
def test_all_folds_are_one_command_that_can_go_on(data, tmp_path):
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "config.json").write_text("{no json")
    said, _ = trained(data, tmp_path, "--folds=3", "--epochs=1")
    series = sorted(path for path in tmp_path.glob("elem-*") if path.is_dir() and not path.name.endswith("-folds"))
    assert len(series) == 3 and "3 folds" in said.out and "labels are probably wrong" in said.out, said.out
    folder = tmp_path / f"{series[0].name}-folds"
    whole = read_predictions(folder / "predictions.csv")
    assert sorted(Path(path).stem for path in whole.paths) == sorted(ids(data / "train.csv"))
    found = json.loads((folder / "results.json").read_text())
    each = [found["folds"][str(fold)]["val_accuracy"] for fold in (1, 2, 3)]
    assert found["mean"]["val_accuracy"] == pytest.approx(np.mean(each))
    assert found["std"]["val_accuracy"] == pytest.approx(np.std(each, ddof=1))
    for fold, place in enumerate(series, start=1):
        assert found["folds"][str(fold)]["test_accuracy"] == accuracy(place / "results.json")
    shutil.rmtree(series[2])
    shutil.rmtree(folder)
    again = run("train_elem", f"--checkpoint={series[1]}", f"--model_save_dir={tmp_path}", small=False)
    assert again.status == 0, again
    assert json.loads((folder / "results.json").read_text())["folds"] == found["folds"]
    assert read_predictions(folder / "predictions.csv").paths == whole.paths


def test_one_fold_is_one_run(data, tmp_path):
    said, folder = trained(data, tmp_path, "--folds=4", "--fold=2", "--epochs=1")
    assert "fold 2 of 4" in said.out and "folds; std" not in said.out
    assert len(read_predictions(folder / "val_predictions.csv").paths) == 12
    assert len(list(tmp_path.iterdir())) == 1


# ---- options


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--folds=5"], "--folds has no meaning with --task=embed"),
        (["--task=classify", "--val_classes=2"], "--val_classes has no meaning with --task=classify"),
        (["--task=classify", "--folds=3", "--val_share=0.1"], "--val_share has no meaning with --folds"),
        (["--task=classify", "--fold=1"], "--fold has no meaning without --folds"),
        (["--task=classify", "--folds=3", "--fold=4"], "--fold must be at least 1 and at most 3"),
        (["--task=classify", "--centers=partial"], "needs --centers=all"),
        (["--epochs=4", "--total_iter_num=5"], "two lengths of one run"),
        (["--plateau_patience=2"], "without --lr_strategy=plateau"),
        (["--fold_series=x"], "noted by the runs"),
    ],
)
def test_options_that_do_not_go_together(typed, words):
    refused(run("train_elem", *typed, small=False), words)


@pytest.mark.slow
def test_a_run_of_epochs_goes_on_as_it_was(data, tmp_path):
    """Its steps are settled once: what was typed beside --epochs is neither refused nor lost at a resume."""
    _, folder = trained(data, tmp_path, "--epochs=2", "--test_iter_step=3", "--val_share=0.2")
    again = run("train_elem", f"--checkpoint={folder}", "--epochs=2", f"--model_save_dir={tmp_path}", small=False)
    assert again.status == 0, again  # the command that it was begun with
    refused(run("train_elem", f"--checkpoint={folder}", "--epochs=3", small=False), "keeps --epochs=2")
    said = run(
        "train_elem", f"--checkpoint={folder}", "--total_iter_num=14", f"--model_save_dir={tmp_path}", small=False
    )
    assert said.status == 0, said
    judged = re.findall(r"step (\d+): val accuracy", (folder / "log.txt").read_text())
    assert list(map(int, judged)) == [0, 3, 6, 9, 10, 12, 14]


def test_with_a_moving_average_the_classes_are_those_of_the_average(data, tmp_path):
    _, folder = trained(data, tmp_path, "--epochs=1", "--ema=0.9", "--val_share=0")
    best, last = (read_tensors(folder / name)[0] for name in ("best.safetensors", "checkpoints/latest.safetensors"))
    assert np.array_equal(best["classifier.weight"], last["average.centers.weight"])
    assert not np.array_equal(best["classifier.weight"], last["loss.centers.weight"])
    averaged = {n.removeprefix("average.embedder."): v for n, v in last.items() if n.startswith("average.embedder.")}
    equal_arrays({name: value for name, value in best.items() if not name.startswith("classifier.")}, averaged)


def test_a_plateau_and_an_early_stop_need_a_judge(data, tmp_path):
    typed = (f"--data_dir={data}", *TYPED, *QUICK, "--val_share=0", f"--model_save_dir={tmp_path}")
    refused(run("train_elem", *typed, "--early_stop=2", small=False), "--early_stop goes by validation pictures")
    refused(run("train_elem", *typed, "--lr_strategy=plateau", small=False), "--lr_strategy=plateau goes by")
    assert run("train_elem", *typed, "--epochs=1", small=False).status == 0


# ---- the loop


def falling(scores):
    """evaluate() that gives these scores one after the other, as a run that is resumed has them again."""
    return lambda state: {"val": scores[min(len(state.scores), len(scores) - 1)]}


def test_a_run_ends_early_and_stays_ended(tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    training = Training(pictures, tmp_path / "run")
    scores = [0.1, 0.5, 0.4, 0.3, 0.9]
    training.judge = lambda: falling(scores)(training.state)
    training.go(40, save=100, test=2, early_stop=2)
    assert training.state.step == 6 and training.state.scores == scores[:4]
    assert training.run.latest.is_file() and any("Stopped at step 6" in line for line in training.log.lines)
    training.go(40, save=100, test=2, early_stop=2)
    assert training.state.step == 6


def test_the_scores_survive_a_resume(tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    scores = [0.5, 0.4, 0.45, 0.3, 0.2, 0.6]
    asked = []

    def rate(step, seen):
        asked.append((step, tuple(seen)))
        return 0.01

    whole = Training(pictures, tmp_path / "whole")
    whole.judge = lambda: falling(scores)(whole.state)
    whole.go(8, save=4, test=2, rate=rate)
    told, asked[:] = list(asked), []
    part = Training(pictures, tmp_path / "part")
    part.judge = lambda: falling(scores)(part.state)
    part.go(4, save=4, test=2, rate=rate)
    again = Training(pictures, tmp_path / "again")
    again.state.restore(part.run.latest)
    again.judge = lambda: falling(scores)(again.state)
    again.go(8, save=4, test=2, rate=rate)
    assert asked == told and again.state.scores == whole.state.scores


# ---- predictions


def test_predictions_come_back_as_they_were(tmp_path):
    odd = ["a,b.jpg", 'q"uote.jpg', "über \udcff.jpg", "line\nbreak.jpg"]
    rows = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    write_predictions(tmp_path / "p.csv", Predictions(odd, ["x", "", "p(z)", "x"], rows, ["x", "p(z)", "y,"]))
    found = read_predictions(tmp_path / "p.csv")
    assert found.paths == odd and found.labels == ["x", "", "p(z)", "x"] and found.classes == ["x", "p(z)", "y,"]
    np.testing.assert_allclose(found.probabilities, rows, rtol=1e-6)
    assert found.take(np.array([2, 0])).paths == [odd[2], odd[0]]


def test_names_with_commas_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b,c", "d"):
        (tmp_path / name).touch()
    assert _named("a,b,c, d") == ["a", "b,c", "d"]
    assert _named("a,x,,y,") == ["a", "x", "y"]
