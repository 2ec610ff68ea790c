"""The four commands end to end, on small data in every layout, and what they say where they can't go on."""

import json
import os
import pickle
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cli_cases
import numpy as np
import pytest
from cli_cases import leftovers, refused, run, working_in
from PIL import Image

from metric_learning.checks import Terminated
from metric_learning.files import read_metadata, read_tensors
from metric_learning.runs import Run
from metric_learning.stages import training

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ["--data_dir=data", "--loss_name=eml", "--seed=1"]
LAYOUTS = {
    "sop": cli_cases.sop,
    "folders": lambda root: cli_cases.folders(root, ".pgm"),
    "nested": cli_cases.nested,
    "groups": cli_cases.races,
    "csv": cli_cases.table,
}


def runs(folder: str = "output") -> list[Path]:
    return sorted(Path(folder).iterdir())


def everything(folder: Path) -> list[Path]:
    """All files; what an interrupted infer goes on from is allowed to stay."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.suffix != ".parts")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working folder with data and one finished run of each stage, shared by the tests that only read them."""
    with working_in(tmp_path_factory.mktemp("cli")) as here:
        cli_cases.folders(Path("data"))
        for said in (
            run("train_elem", "--data_dir=data", "--save_iter_step=1"),
            run("train_pair", *PAIRS, "--model_save_dir=pairs", "--pretrained_model=none"),
        ):
            assert said.status == 0, said.err
        return here


@pytest.fixture
def here(place):
    with working_in(place):
        yield place


@pytest.fixture
def elsewhere(tmp_path):
    with working_in(tmp_path) as folder:
        yield folder


# ---- what works


@pytest.mark.parametrize("layout", [pytest.param(name, marks=[pytest.mark.slow] * (name != "csv")) for name in LAYOUTS])
def test_four_commands_in_a_row(layout: str, elsewhere) -> None:
    LAYOUTS[layout](Path("data"))
    model = "ResNet18" if layout == "csv" else "SmallCNN"
    elem = run("train_elem", "--data_dir=data", f"--model={model}")
    pair = run("train_pair", "--data_dir=data", f"--model={model}", "--loss_name=eml")
    measured, embedded = run("eval"), run("infer")
    assert [said.status for said in (elem, pair, measured, embedded)] == [0] * 4
    assert "".join(said.err for said in (elem, pair, measured, embedded)) == ""
    first, second = runs()
    assert "Weights: random" in elem.out and f"Run: {first}" in elem.out
    kind = "folders" if layout == "nested" else layout
    assert f"data: data read as '{kind}'" in elem.out
    assert pair.out.startswith(f"Starting from the newest stage-one run, {first}")
    assert f"Weights from {first / 'best.safetensors'}" in pair.out and f"Run: {second}" in pair.out
    for said in (measured, embedded):
        assert f"Weights: {second / 'best.safetensors'} ({model}, 8-d, 3x32x32 RGB)" in said.out
    _check_files(second, measured.out)


def _check_files(folder: Path, said: str) -> None:
    figures = json.loads((folder / "eval.json").read_text())
    assert figures["retrieval"]["recall@1"] is not None
    assert (folder / "eval.png").is_file() == ("eval.png" in said)
    with np.load(folder / "embeddings.npz", allow_pickle=False) as file:
        lengths = len(file["embeddings"]), len(file["paths"])
        assert lengths[0] == lengths[1] == int(figures["retrieval"]["queries"]) and file["embeddings"].shape[1] == 8
        assert all(Path(str(path)).is_file() for path in file["paths"])
        assert json.loads(str(file["model"]))["weights"].endswith("best.safetensors")
    assert {path.name for path in folder.iterdir()} >= {"config.json", "classes.json", "log.txt", "results.json"}
    log = (folder / "log.txt").read_text()
    assert "Starting from the newest stage-one run" in log and "Recall@1" in log
    assert not leftovers(folder)


@pytest.mark.slow
def test_from_the_backbone_alone(here) -> None:
    (folder,) = runs("pairs")
    log = (folder / "log.txt").read_text()
    assert "stage-one" not in log and "Weights: random" in log


def test_stage_two_without_a_stage_one_run_says_so(here) -> None:
    said = run("train_pair", "--data_dir=data", "--model_save_dir=empty", "--loss_name=eml", "--train_batch_size=999")
    assert said.out.startswith("No stage-one run in 'empty': starting from the backbone alone.")
    refused(said, "--train_batch_size")
    assert runs("empty") == []


@pytest.mark.slow
def test_without_validation_classes_the_newest_weights_are_kept(here) -> None:
    said = run("train_elem", "--data_dir=data", "--val_classes=0", "--test_classes=0", "--model_save_dir=noval")
    assert said.status == 0 and "Weights of step 2, the last" in said.out
    (folder,) = runs("noval")
    assert read_metadata(folder / "best.safetensors")["about"]["step"] == 2
    best, newest = read_tensors(folder / "best.safetensors")[0], read_tensors(Run(folder).latest)[0]
    assert all(np.array_equal(value, newest[f"embedder.{name}"]) for name, value in best.items())


def test_a_gpu_that_is_not_there_is_told_once(here) -> None:
    said = run("eval", "--use_gpu=True", "--data_dir=nowhere")
    assert said.out.count("No GPU:") == 1 and "nowhere" in refused(said)
    assert "No GPU" not in run("eval", "--use_gpu=0", "--data_dir=nowhere").out


def test_options_of_the_past_are_accepted_and_said_to_be_so(here) -> None:
    said = run("train_elem", "--data_dir=nowhere", "--enable_ce=True", "--with_mem_opt=0")
    assert said.out.count("is accepted and has no effect") == 2


@pytest.mark.slow
def test_notes_about_odd_batches(here) -> None:
    said = run(
        "train_elem",
        "--data_dir=data",
        "--train_batch_size=64",
        "--arc_margin=0.1",
        "--total_iter_num=1",
        "--model_save_dir=odd",
    )
    assert said.status == 0
    assert "--train_batch_size=64 is more than the 40 pictures to train on" in said.out
    assert "--arc_margin has no effect with --loss_name=softmax." in said.out
    said = run(
        "train_pair", "--data_dir=data", "--loss_name=eml", "--samples_each_class=6", "--train_batch_size=12",
        "--total_iter_num=1", "--model_save_dir=odd", "--arc_margin=0.3",
    )  # fmt: skip
    refused(said, "train_elem.py has")
    said = run(
        "train_pair", "--data_dir=data", "--loss_name=eml", "--samples_each_class=6", "--train_batch_size=12",
        "--total_iter_num=1", "--model_save_dir=odd",
    )  # fmt: skip
    assert said.status == 0 and "fewer than --samples_each_class=6 pictures" in said.out


# ---- infer


@pytest.mark.slow
def test_embeddings_of_a_folder_a_list_a_table_and_a_picture(here) -> None:
    Path("some pictures.txt").write_text("data/class00/0.png\n\n  data/class01/1.png\n")
    Path("some.csv").write_text("path,label\ndata/class00/0.png,a\ndata/class02/0.png,b\ndata/class02/1.png,b\n")
    wanted = {"data": 60, "some pictures.txt": 2, "some.csv": 3, "data/class00/0.png": 1}
    for given, count in wanted.items():
        said = run("infer", f"--input={given}", "--output=given")
        assert said.status == 0 and f"{count} embeddings of 8 numbers" in said.out, said
        with np.load("given.npz") as file:
            assert len(file["paths"]) == count
    assert not Path("given.npz.parts").exists()


@pytest.mark.slow
def test_a_pair_and_a_search(here) -> None:
    a, b = "data/class00/0.png", "data/class01/0.png"
    assert "cosine 1.0000" in run("infer", "--pair", a, a).out
    said = run("infer", "--pair", a, b)
    assert 0 <= float(said.out.split("similarity ")[1].split()[0]) <= 1
    refused(run("infer", f"--query={a}", "--output=none.npz"), "none.npz", "Make them with infer.py")
    assert run("infer", "--input=data", "--output=all").status == 0
    found = run("infer", f"--query={a}", "--output=all", "--top_k=3").out.splitlines()[-4:]
    assert found[0].split()[3:] == ["cosine", "1.0000", a] and found[3] == "Written: all.search.png"


@pytest.mark.slow
def test_a_gallery_from_its_making_to_its_end(here) -> None:
    made = run("infer", "--gallery=shop", "--input=data/class00")
    assert made.status == 0 and "Added: 5 pictures" in made.out, made
    proposed = made.out.splitlines()[-1].removeprefix("Next: python infer.py ")
    found = run("infer", *shlex.split(proposed), "--rerank=True", "--rerank_k1=3", "--rerank_k2=2")
    assert found.status == 0 and "Written: shop/gallery.search.png" in found.out and "  re-ranked " in found.out
    assert "Added: 55 pictures" in run("infer", "--gallery=shop", "--input=data").out
    assert "Nothing to add" in run("infer", "--gallery=shop", "--input=data").out
    use = ["--gallery=shop", "--query=data/class00/0.png"]
    refused(run("infer", *use, f"--pretrained_model={runs('pairs')[0]}"), "other weights")
    refused(run("infer", *use, "--flip_test=True"), "flip_test False, not True")
    assert "Taken out: 60 pictures" in run("infer", "--gallery=shop", "--remove=data").out
    refused(run("infer", *use), "holds no pictures")


@pytest.mark.slow
def test_figures_after_a_re_ranking(here) -> None:
    said = run("eval", "--rerank=True", "--rerank_lambda=1", "--output=ranked.json")
    assert said.status == 0 and "re-ranked by k-reciprocal neighbours (k1=20, k2=6, lambda=1, " in said.out
    figures = json.loads(Path("ranked.json").read_text())
    assert {name: figures["reranked"][name] for name in figures["retrieval"]} == figures["retrieval"]


@pytest.mark.slow
def test_the_commands_that_infer_proposes_work(here) -> None:
    cli_cases.folders(Path("two words"), classes=2, pictures=2)
    said = run("infer", "--input=two words", f"--pretrained_model={runs()[0]}", "--output=two words/e.npz")
    proposed = [line.split("infer.py")[1] for line in said.out.splitlines() if "python infer.py" in line]
    assert [run("infer", *shlex.split(typed)).status for typed in proposed] == [0, 0]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--pair", "data/class00/0.png", "nope.png"], ["nope.png", "No such file"]),
        (["--query=nope.png"], ["nope.png", "No such file"]),
        (["--query=data"], ["not a regular file"]),
        (["--input=nope"], ["--input=nope"]),
        (["--input=junk.txt"], ["cannot be read"]),
        (["--input=wide.txt"], ["wide.txt:1", "save the list as UTF-8"]),
        (["--input=empty.txt"], ["the list is empty"]),
        (["--input=half.txt"], ["1 of 2 pictures", "nope.png"]),
        (["--input=none.txt", "--max_bad_pictures=1"], ["None of the pictures"]),
        (["--input=junk.png"], ["junk.png"]),
        (["--input=data", "--output=/proc/x/y"], ["/proc/x", "--output"]),
        (["--input=data", "--output=empty.txt/y"], ["empty.txt", "--output"]),
        (["--query=data/class00/0.png", "--output=junk.txt"], ["junk.txt.npz"]),
        (["--data_dir=nowhere"], ["nowhere"]),
        (["--pretrained_model=nowhere"], ["nowhere"]),
        (["--model_save_dir=nowhere"], ["no run in 'nowhere'"]),
    ],
)
@pytest.mark.sweep
def test_what_infer_refuses(typed: list[str], words: list[str], here) -> None:
    Path("junk.txt").write_bytes(b"\xff\xfe\x80\n")
    Path("wide.txt").write_bytes("data/class00/0.png\n".encode("utf-16"))
    Path("junk.png").write_bytes(b"\x89PNG\r\n\x1a\n...")
    Path("empty.txt").write_text("\n \n")
    Path("half.txt").write_text("data/class00/0.png\nnope.png\n")
    Path("none.txt").write_text("nope.png\n")
    before = everything(here)
    refused(run("infer", *typed), *words)
    assert everything(here) == before


@pytest.mark.slow
def test_a_few_unreadable_pictures_of_a_list_are_named(here) -> None:
    Path("half.txt").write_text("data/class00/0.png\nnope.png\n")
    said = run("infer", "--input=half.txt", "--max_bad_pictures=0.5", "--output=half.npz")
    assert said.status == 0 and "Left out, can't be read: nope.png: No such file" in said.out


# ---- eval


@pytest.mark.slow
def test_results_go_where_they_are_wanted(here) -> None:
    Path("results").mkdir(exist_ok=True)
    assert run("eval", "--output=results").status == 0 and Path("results/eval.json").is_file()
    assert run("eval", "--output=results/new/mine").status == 0 and Path("results/new/mine.json").is_file()


@pytest.mark.slow
def test_pairs_of_a_list(here) -> None:
    rows = [f"class0{i}/0.png,class0{i}/1.png,1\nclass0{i}/0.png,class0{i + 1}/1.png,0" for i in range(5)]
    Path("pairs.csv").write_text("a,b,same\n" + "\n".join(rows) + "\n")
    said = run("eval", "--pairs=pairs.csv", "--fars=0.2", "--output=pairs.json")
    assert said.status == 0 and "the 10 pairs of pairs.csv" in said.out
    (figures,) = json.loads(Path("pairs.json").read_text())["verification"]["groups"].values()
    assert (figures["positives"], figures["negatives"]) == (5, 5)


@pytest.mark.slow
def test_pairs_in_every_kind_of_list(here) -> None:
    people = [(Path("lfw") / f"p{i}" / f"p{i}_000{n}.png") for i in range(4) for n in (1, 2)]
    for number, path in enumerate(people):
        cli_cases.write_picture(path, number // 2, number)
    same, other = "".join(f"p{i}\t1\t2\n" for i in range(4)), "".join(f"p{i}\t1\tp{(i + 1) % 4}\t2\n" for i in range(4))
    Path("lfw/one.txt").write_text("4\n" + same + other)
    rows = (same + other).splitlines()
    Path("two.txt").write_text("2\t2\n" + "\n".join(rows[0:2] + rows[4:6] + rows[2:4] + rows[6:8]) + "\n")
    Path("lfw.bin").write_bytes(pickle.dumps(([path.read_bytes() for path in people], [True, False, True, False])))
    media = "".join(f"{path},t{i},m\n" for i, path in enumerate(people))
    Path("templates.csv").write_text(f"path,template,media\n{media}")
    Path("named.csv").write_text("a,b,same\nt0,t1,1\nt0,t2,0\n")
    for typed, words in (
        (["--pairs=lfw/one.txt", "--flip_test=True"], ["LFW View 1", "optimistic", "flip test           yes"]),
        (["--pairs=lfw/one.txt", "--folds=2"], ["optimistic", "Accuracy over folds"]),
        (["--pairs=two.txt", "--data_dir=lfw"], ["LFW View 2", "Accuracy over folds", "n/a (needs 10,000 negatives)"]),
        (["--pairs=lfw.bin"], ["InsightFace .bin", "the 4 pairs of lfw.bin", "data                lfw.bin"]),
        (["--pairs=named.csv", "--templates=templates.csv"], ["csv of templates", "8 of templates.csv"]),
    ):
        said = run("eval", *typed, "--output=kinds.json")
        assert said.status == 0 and all(word in said.out for word in words), (typed, said)
    refused(run("eval", "--pairs=two.txt", "--data_dir=data"), "8 of the 8 pictures", "p0_0001", "two.txt:2")


@pytest.mark.slow
def test_classes_that_were_trained_on_are_told_also_where_the_data_was_moved(here) -> None:
    assert "WARNING" not in run("eval", "--output=own.json").out
    shutil.copytree("data", "moved", dirs_exist_ok=True)
    assert "WARNING: 10 of the 12 classes" in run("eval", "--data_dir=moved", "--output=own.json").out


@pytest.mark.slow
def test_stage_two_does_not_call_classes_unseen_that_stage_one_was_trained_on(here) -> None:
    typed = ["--data_dir=data", "--loss_name=eml", "--total_iter_num=1", "--model_save_dir=leak"]
    weights = f"--pretrained_model={runs()[0]}"
    said = run("train_pair", *typed, weights, "--split_seed=5", "--test_classes=5")
    assert said.status == 0 and "WARNING" in said.out and "none of them seen" not in said.out
    said = run("train_pair", *typed, weights)
    assert said.status == 0 and "WARNING" not in said.out and "none of them seen in training" in said.out


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--data_dir=nowhere"], ["nowhere does not exist"]),
        (["--split=val", "--val_classes=0"], ["--split=val"]),
        (["--output=/proc/x/y.json"], ["/proc/x", "--output"]),
        (["--output=bad.csv/y.json"], ["bad.csv", "--output"]),
        (["--pairs=nope.csv"], ["nope.csv"]),
        (["--pairs=data"], ["Is a directory"]),
        (["--pairs=bad.csv"], ["bad.csv:1", "a,b,same"]),
        (["--pairs=missing.csv"], ["nope.png"]),
        (["--pairs=yes.csv"], ["yes.csv:2", "same=0 or 1"]),
        (["--model=ResNet34"], ["holds a SmallCNN"]),
        (["--embedding_size=16"], ["--embedding_size=8"]),
        (["--image_shape=1,32,32"], ["takes 3 channels"]),
        (["--pretrained_model=text.safetensors"], ["text.safetensors"]),
        (["--pretrained_model=half.safetensors"], ["half.safetensors"]),
        (["--pretrained_model=evil.pdparams"], ["posix.system"]),
        (["--pretrained_model=evil.pdparams", "--model=ResNet18"], ["posix.system"]),
        (["--pretrained_model=data"], ["no weights in data"]),
        (["--model_save_dir=data"], ["no run in 'data'"]),
    ],
)
@pytest.mark.sweep
def test_what_eval_refuses(typed: list[str], words: list[str], here) -> None:
    Path("bad.csv").write_text("x,y,same\n")
    Path("missing.csv").write_text("a,b,same\nclass00/0.png,nope.png,1\n")
    Path("yes.csv").write_text("a,b,same\nclass00/0.png,class00/1.png,yes\n")
    Path("text.safetensors").write_text("hello")
    whole = (runs()[0] / "best.safetensors").read_bytes()
    Path("half.safetensors").write_bytes(whole[: len(whole) // 2])
    Path("evil.pdparams").write_bytes(pickle.dumps({"a": Evil()}, 2))
    before = everything(here)
    refused(run("eval", *typed), *words)
    assert everything(here) == before


class Evil:
    def __reduce__(self):
        return os.system, ("touch hacked",)


# ---- training: refusals


@pytest.mark.parametrize(
    ("command", "typed", "words"),
    [
        ("train_elem", ["--data_dir=nowhere"], ["nowhere does not exist"]),
        ("train_elem", ["--data_dir=void"], ["void holds no pictures"]),
        ("train_elem", ["--data_dir=void", "--dataset=sop"], ["Ebay_train.txt"]),
        ("train_elem", ["--data_dir=data/class00"], ["no class folders"]),
        ("train_elem", ["--data_dir=data/class00/0.png"], ["neither a .csv nor"]),
        ("train_elem", ["--data_dir=one"], ["fewer than 2 classes"]),
        ("train_elem", ["--data_dir=header"], ["Ebay_train.txt:1", "header"]),
        ("train_elem", ["--data_dir=labels"], ["Ebay_train.txt:2", "whole number"]),
        ("train_elem", ["--data_dir=data", "--test_classes=11"], ["--test_classes=11"]),
        ("train_elem", ["--data_dir=data", "--test_classes=1.5"], ["--test_classes"]),
        ("train_elem", ["--data_dir=data", "--val_classes=10"], ["--val_classes=10"]),
        ("train_elem", ["--data_dir=data", "--class_dim=3"], ["--class_dim=3"]),
        ("train_elem", ["--data_dir=data", "--model_save_dir=data/class00/0.png"], ["--model_save_dir"]),
        ("train_elem", ["--data_dir=data", "--model_save_dir=/proc/x"], ["--model_save_dir"]),
        ("train_elem", ["--data_dir=data", "--pretrained_model=nope"], ["nope"]),
        ("train_elem", ["--data_dir=data", "--pretrained_model=data/class00/0.png"], [".safetensors, .pdparams"]),
        ("train_pair", ["--data_dir=data", "--loss_name=triplet"], ["multiple of 3"]),
        ("train_pair", ["--data_dir=data", "--loss_name=eml", "--samples_each_class=3"], ["multiple of 3"]),
        ("train_pair", ["--data_dir=data", "--loss_name=eml", "--train_batch_size=40"], ["there are 8"]),
        ("train_pair", ["--data_dir=data", "--loss_name=eml", "--train_batch_size=2"], ["single class"]),
        ("train_pair", ["--data_dir=single", "--loss_name=eml"], ["add pictures"]),
    ],
)  # fmt: skip
@pytest.mark.sweep
def test_what_training_refuses(command: str, typed: list[str], words: list[str], here) -> None:
    if not Path("void").exists():
        _bad_data()
    where = [] if any("model_save_dir" in option for option in typed) else ["--model_save_dir=none"]
    refused(run(command, *typed, *where), *words)
    assert not where or not Path("none").exists() or runs("none") == []


def _bad_data() -> None:
    cli_cases.folders(Path("one"), classes=1)
    cli_cases.folders(Path("single"), pictures=1)
    for name, text in (
        ("void", None),
        ("header", "id class path\n1 1 x\n"),
        ("labels", "image_id class_id super_class_id path\n1 one 1 x.jpg\n"),
    ):
        Path(name).mkdir()
        if text:
            Path(name, "Ebay_train.txt").write_text(text)


def test_weights_of_another_shape(here) -> None:
    weights = f"--pretrained_model={runs()[0]}"
    refused(run("train_elem", "--data_dir=data", weights, "--model=ResNet34", small=False), "holds a SmallCNN")
    refused(run("train_elem", "--data_dir=data", weights, "--image_shape=1,32,32", small=False), "takes 3 channels")
    refused(run("train_elem", "--data_dir=data", weights, "--embedding_size=16", small=False), "--embedding_size")


# ---- resume


def test_what_cannot_be_resumed(here) -> None:
    (folder,) = runs()
    for given in ("nowhere", "data"):
        refused(run("train_elem", f"--checkpoint={given}", small=False), "no run at")
    refused(run("train_pair", f"--checkpoint={folder}", small=False), "train_elem.py")
    refused(run("train_elem", f"--checkpoint={folder}/best.safetensors", small=False), "no training state")
    refused(run("train_elem", f"--checkpoint={folder}/config.json", small=False), "config.json")
    refused(run("train_elem", f"--checkpoint={folder}", "--lr=3", small=False), "keeps --lr=0.01")


@pytest.mark.slow
def test_a_finished_run_says_so_and_goes_on_with_more_steps(elsewhere) -> None:
    cli_cases.folders(Path("data"))
    assert run("train_elem", "--data_dir=data", "--val_classes=0").status == 0
    (folder,) = runs()
    said = run("train_elem", f"--checkpoint={folder}", small=False)
    assert said.status == 0 and "All of its 2 steps are done" in said.out and "step 3" not in said.out
    Path("data").rename("moved")
    refused(run("train_elem", f"--checkpoint={folder}", small=False), "data does not exist")
    said = run("train_elem", f"--checkpoint={folder}", "--total_iter_num=3", "--data_dir=moved", small=False)
    assert said.status == 0 and "Resumed at step 2" in said.out and "step 3/3" in said.out


# ---- pictures


@pytest.mark.slow
def test_pictures_of_every_kind_work_in_all_four(elsewhere) -> None:
    root = cli_cases.folders(Path("data"))
    image = Image.fromarray(cli_cases.pixels(1, 1))
    for i, mode in enumerate(("L", "RGBA", "LA", "P", "1")):
        image.convert(mode).save(root / f"class{i:02d}" / "kind.png")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(root / "class05" / "deep.png")
    image.convert("CMYK").save(root / "class06" / "cmyk.jpg")
    turned = image.getexif()
    turned[0x112] = 6
    image.save(root / "class07" / "turned.jpg", exif=turned)
    for command, typed in (
        ("train_elem", ["--data_dir=data", "--test_classes=0"]),
        ("train_pair", ["--data_dir=data", "--loss_name=eml"]),
        ("eval", ["--split=all"]),
        ("infer", ["--input=data"]),
    ):
        said = run(command, *typed)
        assert said.status == 0 and "can't be read" not in said.out and said.err == "", said
    with np.load(runs()[1] / "embeddings.npz") as file:
        assert len(file["paths"]) == 68


@pytest.mark.slow
def test_truncated_pictures(elsewhere) -> None:
    root = cli_cases.folders(Path("data"), ".jpg", pictures=10)
    whole = (root / "class00" / "0.jpg").read_bytes()
    (root / "class00" / "0.jpg").write_bytes(whole[: len(whole) // 2])
    typed = ["--data_dir=data", "--test_classes=0", "--val_classes=0", "--train_batch_size=120", "--total_iter_num=1"]
    said = run("train_elem", *typed)
    assert said.status == 0 and "Left out, can't be read: data/class00/0.jpg" in said.out
    for i in range(1, 3):
        (root / f"class{i:02d}" / "0.jpg").write_bytes(whole[:200])
    refused(run("train_elem", *typed), "of 120 pictures", "--max_bad_pictures=0.01")
    (_, stopped) = runs()
    assert "stopped: " in (stopped / "log.txt").read_text()
    refused(run("eval", "--split=all"), "of 120 pictures")  # of the first run: the other has no weights
    refused(run("infer", "--input=data"), "of 120 pictures")
    assert not leftovers(elsewhere)


@pytest.mark.slow
def test_names_that_are_no_text(elsewhere) -> None:
    root = cli_cases.folders(Path(os.fsdecode(b"data \xff")), classes=4, pictures=4)
    typed = [f"--data_dir={root}", "--val_classes=0", "--train_batch_size=4", "--total_iter_num=1"]
    for command, given in (
        ("train_elem", typed),
        ("eval", []),
        ("infer", []),
        ("infer", [f"--query={root}/class00/0.png"]),
    ):
        said = run(command, *given)
        assert said.status == 0, (command, said.err)


# ---- the disk


@pytest.mark.slow
def test_a_disk_that_fills_up(elsewhere) -> None:
    """No file may grow above a limit between the embedder's size and the checkpoint's."""
    cli_cases.folders(Path("data"))
    typed = ["--data_dir=data", "--val_classes=0", "--test_classes=0"]
    assert run("train_elem", *typed).status == 0
    (folder,) = runs()
    newest = Run(folder).latest
    before = newest.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        said = run("train_elem", f"--checkpoint={folder}", "--total_iter_num=3", small=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused(said, "Can't write", "step-00000003.safetensors")
    assert newest.read_bytes() == before and not leftovers(elsewhere)
    assert run("train_elem", f"--checkpoint={folder}", "--total_iter_num=3", small=False).status == 0


# ---- how it ends


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "train_elem.py: interrupted.\n"),
        (KeyboardInterrupt("Step 3 is saved"), 130, "train_elem.py: interrupted. Step 3 is saved\n"),
        (KeyboardInterrupt("In transformed code:\n  a page"), 130, "train_elem.py: interrupted.\n"),
        (Terminated("Step 3 is saved"), 143, "train_elem.py: terminated. Step 3 is saved\n"),
        (MemoryError("9 GB"), 2, "train_elem.py: out of memory. Use smaller batches, pictures or networks.\n"),
        (OSError(28, "No space left on device", "a.txt"), 2, "train_elem.py: No space left on device: a.txt.\n"),
    ],
)
def test_every_end_is_one_line(error, status: int, said: str, monkeypatch, here) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(training, "_build", fail)
    ended = run("train_elem", "--data_dir=data")
    assert (ended.status, ended.err) == (status, said)


def start(*typed: str, **given) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(ROOT / typed[0]), *typed[1:]]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **given
    )


@pytest.mark.slow
def test_nothing_but_our_own_lines_is_printed(here) -> None:
    training = start("train_elem.py", *cli_cases.SMALL, "--data_dir=data", "--model_save_dir=quiet")
    out, err = training.communicate()
    assert training.returncode == 0 and err == ""
    lines = out.splitlines()
    assert lines[0] == "data: data read as 'folders' (--dataset changes that)" and lines[-1].startswith("Written: ")
    for typed in (["eval.py"], ["infer.py"]):
        used = start(*typed, "--model_save_dir=quiet", "--use_gpu=0")
        out, err = used.communicate()
        assert used.returncode == 0 and err == "" and out.startswith("Weights: quiet/"), err
        assert "ReduceMean" not in out and "OMP_NUM_THREADS" not in out


@pytest.mark.slow
def test_ctrl_c_in_eval_and_a_reader_that_goes_away(here) -> None:
    for wait in (0.5, 2.0, 3.5):
        stopped = start("eval.py", "--split=all", "--batch_size=1", "--output=stopped.json")
        time.sleep(wait)
        stopped.send_signal(signal.SIGINT)
        _, err = stopped.communicate()
        if stopped.returncode != 0:  # it may have been faster
            assert (stopped.returncode, err) in [(130, "eval.py: interrupted.\n"), (-2, err)]
            assert not leftovers(here)
        if Path("stopped.json").exists():  # then the signal came after the work, and the file is whole
            assert json.loads(Path("stopped.json").read_text())["retrieval"]
            Path("stopped.json").unlink()
    gone = start("eval.py", "--output=gone.json")
    gone.stdout.close()
    _, err = gone.communicate()
    assert (gone.returncode, err) == (141, "")
