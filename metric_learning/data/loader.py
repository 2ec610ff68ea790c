"""Batches from files, prefetched by threads: OpenCV, Pillow and NumPy let go of the interpreter while they work.

What a batch holds is a function of (data, seed, step): the same for any number of workers and after any resume.
Threads leave nothing behind when the program is killed.
"""

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from metric_learning.checks import UserError, check_range
from metric_learning.data.cache import PictureCache
from metric_learning.data.pictures import Opened, PictureError, Source, open_picture, read_picture
from metric_learning.data.replacing import Picker
from metric_learning.data.samplers import AUGMENT, Sampler, SlotRngs
from metric_learning.data.sources import PictureSet
from metric_learning.data.transforms import Picture, PictureSpec, TestTransform, Window, to_batch

Indices = NDArray[np.int64]
Images = NDArray[np.float32]
Transform = Callable[[Opened, np.random.Generator], tuple[Picture, Window]]
Task = TypeVar("Task")
Result = TypeVar("Result")


class Batch(NamedTuple):
    """One training batch, or a process's part: images (B, C, H, W) float32, labels (B,) int64, indices (B,) and paths.

    windows: the B parts of the pictures that the images show. slots: their places in the batch of all processes, which
    holds `whole` pictures; by default this is all of it.
    """

    step: int
    images: Images
    labels: Indices
    indices: Indices
    paths: list[str]
    windows: list[Window]
    slots: range | None = None
    whole: int = 0

    def part(self, cut: slice) -> "Batch":
        """Some of its pictures."""
        own = {name: getattr(self, name)[cut] for name in ("images", "labels", "indices", "paths", "windows")}
        return self._replace(**own, slots=self.places()[cut], whole=self.whole or len(self.labels))

    def places(self) -> range:
        """slots, also where they are not said."""
        return range(len(self.labels)) if self.slots is None else self.slots


class BadPictures:
    """The pictures that could not be read, once each; stops the run when they are more than `max_share` of `total`.

    Safe to use from several threads. max_share in 0..1 is --max_bad_pictures.
    """

    def __init__(self, total: int, max_share: float = 0.01) -> None:
        check_range("--max_bad_pictures", max_share, 0, 1)
        self.total, self.max_share = total, max_share
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, path: str, error: PictureError) -> None:
        """Note one picture; a UserError once there are too many."""
        self.take({path: str(error)})

    def take(self, reasons: dict[str, str]) -> None:
        """Note what another process has noted, path -> why; a UserError once there are too many."""
        with self._lock:
            self._reasons |= {path: why for path, why in reasons.items() if path not in self._reasons}
            count = len(self._reasons)
        if count > self.max_share * self.total:
            raise UserError(
                f"{count} of {self.total} pictures cannot be read ({count / max(self.total, 1):.1%}), more than "
                f"--max_bad_pictures={self.max_share:g} allows: {'; '.join(self.lines()[:3])}; mend them or raise it."
            )

    def reasons(self) -> dict[str, str]:
        """path -> why."""
        with self._lock:
            return dict(self._reasons)

    def __len__(self) -> int:
        return len(self._reasons)

    def lines(self) -> list[str]:
        """'path: why' for each, sorted by path."""
        with self._lock:
            return [self._reasons[path] for path in sorted(self._reasons)]


def train_batches(
    pictures: PictureSet,
    sampler: Sampler,
    transform: Transform,
    spec: PictureSpec,
    *,
    seed: int,
    start_step: int,
    stop_step: int,
    workers: int,
    bad: BadPictures,
    part: tuple[int, int] = (0, 1),
    cache_mb: int = 0,
) -> Iterator[Batch]:
    """The batches of steps start_step .. stop_step - 1, in order; workers 0 makes each in the caller.

    The picture in slot k of a step is transformed with a generator of (seed, step, k) alone. One that cannot be read
    goes to `bad` and the next readable one of its class, cyclic by index, takes its place. Where a class has none, all
    its slots go to one other class, not in the batch if possible, so a batch of P x K stays one. Labels and indices are
    those of the pictures that were read. Errors of a worker are raised here as they are. Close the iterator, or let go
    of it, to stop early.

    part: (rank, size). Of the sampler's B slots only rank B / size .. (rank + 1) B / size are read and given out; the
    batches of all ranks, one behind the other, are the batch of one process. UserError where size does not divide B.
    cache_mb: megabytes of memory in which decoded pictures stay; they change no batch.
    """
    check_range("--num_workers", workers, 0)
    mine = own_slots(len(sampler.batch(start_step)), part) if part[1] != 1 else slice(None)
    classes = functools.cache(pictures.class_indices)
    open_: Callable[[str], Opened] = PictureCache(cache_mb).open if cache_mb else open_picture

    def make(task: tuple[int, Indices], stop: threading.Event) -> Batch:
        step, wanted = task
        picker: Picker[tuple[str, Picture, Window]] = Picker(pictures, classes, wanted)
        chosen, paths, ready, windows = [], [], [], []
        slots, rngs = range(len(wanted))[mine], SlotRngs(AUGMENT, seed, step)
        for slot in slots:
            if stop.is_set():
                break

            def load(path: str, slot: int = slot) -> tuple[str, Picture, Window] | None:
                try:
                    return path, *transform(open_(path), rngs.at(slot))
                except PictureError as error:
                    bad.add(path, error)
                    return None

            taken, (path, image, window) = picker.read(int(wanted[slot]), load)
            chosen.append(taken)
            paths.append(path)
            ready.append(image)
            windows.append(window)
        indices = np.array(chosen, dtype=np.int64)
        images = to_batch(ready, spec)
        return Batch(step, images, pictures.labels[indices], indices, paths, windows, slots, len(wanted))

    # Samplers keep the latest epoch, so they are asked in the caller's thread, one step after the other.
    return _in_order(((step, sampler.batch(step)) for step in range(start_step, stop_step)), make, workers)


def own_slots(batch_size: int, part: tuple[int, int]) -> slice:
    """The slots of the global batch that rank part[0] of part[1] processes makes."""
    rank, size = part
    check_range("the rank of a process", rank, 0, size - 1)
    if batch_size % size:
        near = max(batch_size - batch_size % size, size)
        raise UserError(
            f"--train_batch_size={batch_size} must be a multiple of {size}, the number of processes; try {near}."
        )
    return slice(rank * batch_size // size, (rank + 1) * batch_size // size)


def test_batches(
    paths: Sequence[Source],
    spec: PictureSpec,
    batch_size: int,
    workers: int,
    bad: BadPictures,
    flip: bool = False,  # noqa: PT028
) -> Iterator[tuple[Indices, Images]]:
    """(indices into `paths` (b,), images (b, C, H, W) float32) in order; unreadable pictures are left out, so b <= B.

    Instead of a path a picture may be given as its encoded bytes.
    flip mirrors every picture, for the flip test. The last batch is short; one with nothing readable is not given out.
    """
    check_range("--test_batch_size", batch_size, 1)
    check_range("--num_workers", workers, 0)
    transform = TestTransform(spec)

    def make(start: int, stop: threading.Event) -> tuple[Indices, Images]:
        kept, ready = [], []
        for index in range(start, min(start + batch_size, len(paths))):
            if stop.is_set():
                break
            picture = _read(paths[index], bad)
            if picture is not None:
                kept.append(index)
                picture = transform(picture)
                ready.append(picture[:, ::-1] if flip else picture)
        return np.array(kept, dtype=np.int64), to_batch(ready, spec)

    batches = _in_order(iter(range(0, len(paths), batch_size)), make, workers)
    return (batch for batch in batches if len(batch[0]))


test_batches.__test__ = False  # type: ignore[attr-defined]  # a test of a model, not of pytest's


# ---- one picture


def _read(path: Source, bad: BadPictures) -> Picture | None:
    try:
        return read_picture(path)
    except PictureError as error:
        bad.add(str(path), error)
        return None


# ---- threads


def _in_order(tasks: Iterator[Task], make: Callable[[Task, threading.Event], Result], workers: int) -> Iterator[Result]:
    """make(task) for each task, in order, at most workers + 1 of them ahead of the consumer."""
    cv2.setNumThreads(0)  # one picture a thread; OpenCV's own threads would fight with them and with Paddle's
    stop = threading.Event()
    if workers == 0:
        yield from (make(task, stop) for task in tasks)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
    try:
        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            waiting.append(pool.submit(make, task, stop))
            if len(waiting) > workers + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
