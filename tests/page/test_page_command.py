"""eval --report, end to end: what it writes, and what it refuses before any work."""

import os
from pathlib import Path

import cli_cases
import pytest
from cli_cases import leftovers, refused, run, working_in
from page_cases import Page
from small_runs import new_embedder

from metric_learning.embedder import save_embedder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Faces in groups, and weights that know nothing."""
    with working_in(tmp_path_factory.mktemp("report")) as here:
        cli_cases.races(Path("data"))
        save_embedder(Path("w.safetensors"), new_embedder(model="SmallCNN"), {})
        return here


@pytest.fixture
def here(place):
    with working_in(place):
        yield place


def report(*arguments: str) -> cli_cases.Said:
    return run("eval", "--pretrained_model=w.safetensors", "--data_dir=data", "--use_gpu=False", *arguments)


def test_a_set_with_groups(here):
    said = report("--report=pages/page.html", "--output=eval.json")
    assert said.status == 0 and said.err == "", said.err
    assert "Written: pages/page.html, a page to open" in said.out and not leftovers(here)
    html = Path("pages/page.html").read_text(encoding="utf-8")
    page = Page(html)
    assert {"summary", "retrieval", "verification", "worst", "suspects", "map"} <= set(page.ids())
    assert page.column("Ability", "Same pairs").keys() == {"African", "Asian", "Caucasian"}
    assert "the weights are of no run" in page.text and html.count("data:image/jpeg") >= 6
    assert page.cards["split"] == "all" and "SmallCNN on data" in page.text


def test_a_list_of_pairs(here):
    people = sorted(Path("data").rglob("*.jpg"))
    rows = [f"{a},{b},{int(a.parent == b.parent)}" for a, b in zip(people, people[1:] + people[:1], strict=True)]
    Path("pairs.csv").write_text("\n".join(["a,b,same", *rows]) + "\n")
    said = run("eval", "--pretrained_model=w.safetensors", "--pairs=pairs.csv", "--report=pairs", "--fars=0.1")
    assert said.status == 0, said.err
    page = Page(Path("pairs.html").read_text(encoding="utf-8"))
    assert "says which pictures are alike, not which class" in page.text and "Same, and least alike" in page.text
    assert "map" not in page.ids()


def test_what_is_refused_in_one_line(here):
    refused(report("--report=a.html", "--clean=b.csv"), "--report", "--clean")
    refused(report("--report=a.html", "--task=classify"), "--report", "classifier")
    Path("file").write_text("")
    said = report("--report=file/a.html")
    refused(said, "--report", "file")
    assert "Recall@1" not in said.out and not Path("a.html").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_refused(here):
    Path("closed").mkdir(mode=0o500)
    refused(report("--report=closed/a.html"), "closed", "--report")


@pytest.mark.slow
def test_weights_of_a_run(here):
    assert run("train_elem", "--data_dir=data").status == 0
    said = run("eval", "--report=run.html", "--split=all")
    assert said.status == 0 and said.err == "", said.err
    page = Page(Path("run.html").read_text(encoding="utf-8"))
    assert "learning" in page.ids() and "trained on classes of these names" in page.text
    assert page.column("Loss in training", "Last")
