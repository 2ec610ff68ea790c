"""What has to be set before and right after Paddle is imported: threads, the fast CPU path, the device."""

import contextlib
import ctypes
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from metric_learning.checks import UserError

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def paddle_version() -> tuple[str, tuple[int, ...]]:
    """('paddlepaddle 3.3.1', (3, 3, 1)) of the installed build, without importing it."""
    for package in ("paddlepaddle", "paddlepaddle-gpu"):
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        return f"{package} {version}", tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    raise UserError("PaddlePaddle is not installed. Run: pip install -r requirements.txt (or requirements-cpu.txt).")


def onednn_works() -> bool:
    """Whether this build trains right through oneDNN convolutions. 2.6 reads their gradients back wrong."""
    return paddle_version()[1] >= (3, 3)


def prepare(threads: int = 0, onednn: bool = False) -> None:
    """Set what Paddle reads at its import; it must not have been imported yet. threads 0: all cores."""
    count = str(threads or _cores())
    for name in _THREADS:  # Paddle takes one thread unless it is told otherwise
        if threads:
            os.environ[name] = count
        else:
            os.environ.setdefault(name, count)
    # NumPy's threads turn in circles for 20 ms behind each product by default, on the cores that oneDNN's then need.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    if _amd_with_avx2():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")  # MKL takes its slowest kernels on AMD otherwise
    if onednn and onednn_works():
        os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112
        os.environ["FLAGS_new_executor_serial_run"] = "1"  # noqa: SIM112
    os.environ.setdefault("GLOG_minloglevel", "2")
    silence_known_warnings()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def math_threads() -> int:
    """How many threads Paddle computes with: the first number of OMP_NUM_THREADS, which may be a list."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) else 1


def cpu_flags() -> tuple[str, frozenset[str]]:
    """(vendor, flags) as Linux tells them; ('', nothing) elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "", frozenset()
    first = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    return first.get("vendor_id", ""), frozenset(first.get("flags", "").split())


def computes_bfloat16() -> bool:
    """Whether the processor has bfloat16 arithmetic (AVX512-BF16 or AMX)."""
    return bool(cpu_flags()[1] & {"avx512_bf16", "amx_bf16"})


def _amd_with_avx2() -> bool:
    vendor, flags = cpu_flags()
    return vendor == "AuthenticAMD" and "avx2" in flags


def keep_freed_memory() -> None:
    """From now on freed memory stays with the process, where the C library is glibc.

    Each step of a training frees and asks for the same arrays. By default large ones go back to the system every time,
    which has to clear their pages anew: with many classes that took as long as the arithmetic.
    """
    mmap_max, trim_threshold = -4, -1  # glibc's malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


def silence_known_warnings() -> None:
    """Warnings that every user meets and none can act on."""
    warnings.filterwarnings("ignore", message="No ccache found")
    warnings.filterwarnings("ignore", message="You are using GPU version Paddle")
    warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Inside, nothing reaches the terminal, not even what C++ code prints: the inference engine chats of its passes."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        kept = {number: os.dup(number) for number in (1, 2)}
    except OSError:  # there is no terminal, nor anything in its place
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in kept:
            os.dup2(nowhere, number)
        yield
    finally:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).fflush(None)  # what C keeps back for a pipe would come out later
        for number, before in kept.items():
            os.dup2(before, number)
            os.close(before)
        os.close(nowhere)


def select_device(use_gpu: bool) -> str:
    """Choose 'gpu' or 'cpu' for all that follows; say once why a GPU that was asked for can't be had."""
    import paddle

    reason = ""
    if use_gpu and not paddle.is_compiled_with_cuda():
        build = paddle_version()[0]
        reason = f"{build} is a CPU build; to get one: pip uninstall paddlepaddle && pip install paddlepaddle-gpu"
    elif use_gpu and not _gpu_count():
        reason = "Paddle finds no usable GPU; see that nvidia-smi lists one and its driver supports CUDA 11.8 or newer"
    elif use_gpu and (failed := gpu_failure()):
        reason = (
            f"{paddle_version()[0]} finds one but can't compute on it ({failed}); paddlepaddle-gpu 2.6.2 is for "
            "compute capabilities 6.1 to 8.9, newer GPUs need a newer build from Paddle's own index"
        )
    device = "gpu" if use_gpu and not reason else "cpu"
    if reason:
        print(f"No GPU: {reason}. Going on with the CPU.", flush=True)
    paddle.set_device(device)
    return device


_TRIAL = """
import zlib
import paddle
paddle.set_device("gpu")
x = paddle.ones([1, 8, 8, 8])
found = paddle.nn.functional.conv2d(x, paddle.ones([8, 8, 3, 3]), padding=1).mean() + (x[0, 0] @ x[0, 0]).max()
print("computed", found.item())
"""


def gpu_failure(program: str = _TRIAL, seconds: float = 120.0) -> str:
    """What stops a small computation on the GPU, in a line; '' where it works.

    In a process of its own: without code for this GPU, or without cuDNN, Paddle may end the process that tries.
    """
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.SubprocessError) as error:
        return f"a trial did not end: {type(error).__name__}"
    if done.returncode == 0 and "computed" in done.stdout:
        return ""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "error" in line]
    return (telling or lines or [f"status {done.returncode}"])[-1][:160]


def _gpu_count() -> int:
    import paddle

    try:
        return int(paddle.device.cuda.device_count())
    except Exception:  # a driver that is missing or too old raises more than one kind
        return 0
