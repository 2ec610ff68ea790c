"""What every test needs: Paddle imported once, quietly; the folder of real pictures, where there is one."""

import os
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the naive twins

from metric_learning import runtime

one_of_several = "PYTEST_XDIST_WORKER" in os.environ
runtime.prepare(threads=int(os.environ.get("OMP_NUM_THREADS", "1" if one_of_several else "2")), onednn=True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Paddle's import says of itself is not ours to mend
    import paddle

paddle.set_device("cpu")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pictures beside the project, or $METRIC_LEARNING_DATA; skips where it is missing."""
    here = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("METRIC_LEARNING_DATA", here.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real pictures at {folder}; set METRIC_LEARNING_DATA to have this test")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests first, so that several processes end together.

    Of a sweep all but every fourth test are slow; of a slow sweep METRIC_LEARNING_SWEEPS=8 leaves every eighth.
    """
    parts, left_out = int(os.environ.get("METRIC_LEARNING_SWEEPS", "1")), []
    for item in items:
        if "sweep" in item.keywords:
            number = zlib.crc32(item.nodeid.encode())
            if "slow" in item.keywords and number % parts:
                left_out.append(item)
            elif number % 4:
                item.add_marker("slow")
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    dropped = {id(item) for item in left_out}
    items[:] = sorted((item for item in items if id(item) not in dropped), key=lambda item: "slow" not in item.keywords)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each file's tests in one process, unless another way is typed: what they share (a trained run) is made once."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)
