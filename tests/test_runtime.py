"""What is set before Paddle is imported."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import paddle
import pytest

from metric_learning import runtime

ROOT = Path(runtime.__file__).parents[1]
FLAG = "FLAGS_enable_pir_api"


@pytest.fixture
def no_threads(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_the_version_is_that_of_the_imported_paddle():
    name, numbers = runtime.paddle_version()
    assert name.endswith(paddle.__version__) and numbers == tuple(
        int(part) for part in paddle.version.full_version.split(".")
    )


def test_all_cores_unless_told_otherwise(no_threads):
    runtime.prepare()
    assert runtime.math_threads() == len(os.sched_getaffinity(0))
    runtime.prepare(threads=3)
    assert runtime.math_threads() == 3 and os.environ["OPENBLAS_NUM_THREADS"] == "3"


def test_what_the_user_has_set_stays(no_threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    runtime.prepare()
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_threads_are_taken_as_typed_where_cores_cannot_be_counted_by_process(no_threads, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    runtime.prepare(threads=3)
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(("value", "threads"), [("4", 4), ("4,2", 4), (" 2", 2), ("", 1), ("0", 1), ("many", 1)])
def test_odd_numbers_of_threads(monkeypatch, value, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert runtime.math_threads() == threads


def test_flags_for_the_fast_path_are_set_only_where_it_is_right(monkeypatch):
    for works in (True, False):
        monkeypatch.setattr(runtime, "onednn_works", lambda works=works: works)
        monkeypatch.setenv(FLAG, "1")
        runtime.prepare(threads=1, onednn=True)
        assert os.environ[FLAG] == ("0" if works else "1")
    monkeypatch.setattr(runtime, "onednn_works", lambda: True)
    monkeypatch.setenv(FLAG, "1")
    runtime.prepare(threads=1, onednn=False)
    assert os.environ[FLAG] == "1"


def test_mkl_is_told_of_amd_only(monkeypatch):
    for vendor, flags, told in (
        ("AuthenticAMD", {"avx2"}, "5"),
        ("AuthenticAMD", {"sse2"}, None),
        ("GenuineIntel", {"avx2"}, None),
        ("", set(), None),
    ):
        monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "")
        monkeypatch.delenv("MKL_DEBUG_CPU_TYPE")
        monkeypatch.setattr(runtime, "cpu_flags", lambda found=(vendor, frozenset(flags)): found)
        runtime.prepare(threads=1)
        assert os.environ.get("MKL_DEBUG_CPU_TYPE") == told


def test_cpu_flags_are_read_or_empty(monkeypatch):
    vendor, flags = runtime.cpu_flags()
    assert isinstance(vendor, str) and all(isinstance(flag, str) for flag in flags)

    def none(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", none)
    assert runtime.cpu_flags() == ("", frozenset())


def test_a_gpu_that_is_missing_is_told_once_and_the_cpu_taken(capsys):
    if paddle.is_compiled_with_cuda() and runtime._gpu_count():
        pytest.skip("there is a GPU")
    assert runtime.select_device(True) == "cpu"
    said = capsys.readouterr().out
    assert said.startswith("No GPU: ") and said.count("\n") == 1 and "Going on with the CPU" in said
    assert runtime.select_device(False) == "cpu" and not capsys.readouterr().out


def test_a_gpu_that_can_not_compute_is_told_once_and_the_cpu_taken(capsys, monkeypatch):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(runtime, "_gpu_count", lambda: 1)
    monkeypatch.setattr(runtime, "gpu_failure", lambda: "CUDA error(209), no kernel image is available")
    assert runtime.select_device(True) == "cpu"
    said = capsys.readouterr().out
    assert said.startswith("No GPU: ") and said.count("\n") == 1 and "error(209)" in said and "6.1 to 8.9" in said


def test_what_a_trial_on_a_gpu_says():
    assert runtime.gpu_failure("print('computed', 16.0)") == ""
    assert runtime.gpu_failure("print('first'); raise OSError('(External) CUDA error(209)')") == (
        "OSError: (External) CUDA error(209)"
    )
    assert runtime.gpu_failure("import os; os.abort()").startswith("status -")
    assert runtime.gpu_failure("import time; time.sleep(9)", seconds=0.2) == "a trial did not end: TimeoutExpired"


def test_only_the_known_warnings_are_silenced():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        runtime.silence_known_warnings()
        warnings.warn("No ccache found. Please be aware", stacklevel=1)
        warnings.warn("You are using GPU version Paddle, but", stacklevel=1)
        warnings.warn("When training, we now always track global mean and variance.", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["something else"]


def test_preparing_imports_neither_paddle_nor_numpy():
    code = (
        "import sys; from metric_learning import cli, runtime; runtime.prepare(2, True); "
        "sys.exit(bool({'paddle', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_threads_of_numpy_do_not_stand_in_the_way_of_onednns(monkeypatch):
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "")
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT")
    runtime.prepare(1)
    assert os.environ["OPENBLAS_THREAD_TIMEOUT"] == "4"
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "20")
    runtime.prepare(1)
    assert os.environ["OPENBLAS_THREAD_TIMEOUT"] == "20"
