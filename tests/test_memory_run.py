"""Runs of train_pair.py with a cross-batch memory: what they say, and that they resume to the same bits."""

import shutil
from pathlib import Path

import pytest
from cli_cases import SMALL, refused, run, working_in
from small_runs import equal_arrays, write_pictures

from metric_learning.files import read_tensors

TYPED = (
    "--model=MobileNetV3Small",
    "--data_dir=data",
    "--loss_name=contrastive",
    "--pretrained_model=none",
    "--total_iter_num=8",
    "--val_classes=0",
    "--test_classes=0",
)
MEMORY = ("--memory_size=40", "--memory_start=2")


def latest(folder: Path) -> dict:
    return read_tensors(folder / "checkpoints" / "latest.safetensors")[0]


@pytest.mark.slow
def test_a_run_with_a_memory_resumes_in_the_middle_to_the_same_bits(tmp_path: Path) -> None:
    with working_in(tmp_path):
        write_pictures(tmp_path / "data", classes=10, each=6)
        said = run("train_pair", *TYPED, *MEMORY, "--save_iter_step=4", "--display_iter_step=1", "--keep=0")
        assert said.status == 0, said
        (whole,) = Path("output").iterdir()
        # Batches of 8: the memory is still partly filled at step 4, and has gone round at step 8.
        for held in ("memory 0", "memory 8", "memory 16", "memory 40"):
            assert held in said.out, said.out
        shutil.copytree(whole, "half")
        for name in ("latest", "step-00000008"):
            Path("half", "checkpoints", f"{name}.safetensors").unlink()
        half = Path("half", "checkpoints", "step-00000004.safetensors")
        assert read_tensors(half)[0]["loss.entered"].tolist() == [16]
        said = run("train_pair", f"--checkpoint={half}", small=False)
        assert said.status == 0 and "Resumed at step 4" in said.out, said
        assert latest(whole)["loss.entered"].tolist() == [48]
        equal_arrays(latest(whole), latest(Path("half")))


def test_a_memory_that_can_not_work_is_refused(tmp_path: Path) -> None:
    with working_in(tmp_path):
        write_pictures(tmp_path / "data", classes=10, each=6)
        refused(run("train_pair", *TYPED, "--memory_size=40"), "--memory_start=1000", "--total_iter_num=8")
        refused(
            run("train_pair", *(typed for typed in TYPED if "loss_name" not in typed), *MEMORY), "ready-made triplets"
        )
        assert not Path("output").exists()


def test_epochs_that_are_too_few_steps_for_a_memory_are_refused_before_there_is_a_run(tmp_path: Path) -> None:
    typed = [part for part in (*SMALL, *TYPED) if not part.startswith(("--total_iter_num", "--model="))]
    typed += ["--model=SmallCNN", "--memory_size=40", "--epochs=2"]
    with working_in(tmp_path):
        write_pictures(tmp_path / "data", classes=10, each=6)
        words = "--memory_start=1000 leaves no step of the 16 of --epochs=2 that would use the memory"
        refused(run("train_pair", *typed, small=False), words)
        assert not list(Path().glob("output/*"))
