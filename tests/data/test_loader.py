import contextlib
import gc
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metric_learning.checks import UserError
from metric_learning.data import loader
from metric_learning.data.loader import BadPictures, Batch, test_batches, train_batches
from metric_learning.data.pictures import PictureError, read_picture
from metric_learning.data.samplers import ClassSampler, ShuffleSampler
from metric_learning.data.sources import PictureSet, Sample
from metric_learning.data.transforms import PictureSpec, TestTransform, TrainTransform, Window, to_batch

SPEC = PictureSpec((3, 16, 16))
CLASSES, EACH = 6, 4


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    samples = []
    for number in range(CLASSES * EACH):
        path = tmp_path / f"{number:02d}.png"
        noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        samples.append(Sample(str(path), f"class {number // EACH}"))
    return PictureSet.of(samples)


class Fixed:
    """A sampler that gives the same indices at every step."""

    def __init__(self, *indices: int) -> None:
        self.indices = np.array(indices, dtype=np.int64)

    def batch(self, step: int) -> NDArray[np.int64]:
        return self.indices


def load(pictures: PictureSet, workers: int = 0, start: int = 0, stop: int = 6, **changed: object) -> Iterator[Batch]:
    arguments = {
        "sampler": ClassSampler(pictures.labels, 8, 2, seed=7),
        "transform": TrainTransform(SPEC, color_jitter=0.2),
        "bad": BadPictures(len(pictures), 1.0),
        **changed,
    }
    return train_batches(pictures, spec=SPEC, seed=7, start_step=start, stop_step=stop, workers=workers, **arguments)


def digest(batches: Iterator[Batch]) -> list[str]:
    def one(batch: Batch) -> str:
        parts = (batch.images.tobytes(), batch.labels.tobytes(), batch.indices.tobytes(), repr(batch.paths).encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()

    return [one(batch) for batch in batches]


def spoil(pictures: PictureSet, *indices: int) -> None:
    for index in indices:
        Path(pictures.paths[index]).write_bytes(b"not a picture")


def threads() -> int:
    return sum(thread.name.startswith("pictures") for thread in threading.enumerate())


# ---- the same data, whoever loads it


def test_a_batch_is_what_it_says(pictures: PictureSet) -> None:
    sampler = ClassSampler(pictures.labels, 8, 2, seed=7)
    batches = list(load(pictures, start=3, stop=5))
    assert [batch.step for batch in batches] == [3, 4]
    for batch in batches:
        assert batch.images.shape == (8, 3, 16, 16)
        assert batch.images.dtype == np.float32
        assert np.array_equal(batch.indices, sampler.batch(batch.step))
        assert np.array_equal(batch.labels, pictures.labels[batch.indices])
        assert batch.paths == [pictures.paths[index] for index in batch.indices]


@pytest.mark.parametrize("spoiled", [(), (0, 1, 9, 20, 21, 22, 23)])
def test_workers_and_resume_change_no_byte(pictures: PictureSet, spoiled: tuple[int, ...]) -> None:
    spoil(pictures, *spoiled)
    reference = digest(load(pictures, workers=0))
    assert len(set(reference)) == 6
    for workers in (1, 3):
        assert digest(load(pictures, workers)) == reference
    assert digest(load(pictures, 3, start=4)) == reference[4:]
    assert digest(load(pictures, 1, stop=4)) + digest(load(pictures, 0, start=4)) == reference


def test_slots_are_augmented_apart(pictures: PictureSet) -> None:
    batch = next(load(pictures, sampler=Fixed(0, 0, 0)))
    assert not np.array_equal(batch.images[0], batch.images[1])
    first, second = list(load(pictures, sampler=Fixed(0), stop=2))
    assert not np.array_equal(first.images, second.images)


def test_no_steps_give_no_batches(pictures: PictureSet) -> None:
    assert list(load(pictures, workers=2, start=3, stop=3)) == []
    assert threads() == 0


# ---- pictures that cannot be read


def test_a_bad_picture_gives_way_to_the_next_of_its_class(pictures: PictureSet) -> None:
    spoil(pictures, 3, 4, 5)
    bad = BadPictures(len(pictures), 1.0)
    batch = next(load(pictures, sampler=Fixed(0, 3, 4, 5, 6), bad=bad))
    assert batch.indices.tolist() == [0, 0, 6, 6, 6]
    assert batch.labels.tolist() == [0, 0, 1, 1, 1]
    assert len(bad) == 3
    assert [line.split(": ")[0] for line in bad.lines()] == [pictures.paths[index] for index in (3, 4, 5)]


def test_a_dead_class_hands_all_its_slots_to_one_absent_class(pictures: PictureSet) -> None:
    spoil(pictures, 0, 1, 2, 3)
    batch = next(load(pictures, sampler=Fixed(0, 1, 4, 5, 12, 13)))
    assert batch.labels.tolist() == [2, 2, 1, 1, 3, 3]
    assert batch.indices.tolist() == [8, 9, 4, 5, 12, 13]


def test_two_dead_classes_get_different_stand_ins(pictures: PictureSet) -> None:
    spoil(pictures, *range(8))
    batch = next(load(pictures, sampler=Fixed(0, 1, 4, 5)))
    assert batch.labels.tolist() == [2, 2, 3, 3]


def test_a_present_class_stands_in_where_no_other_is_left(pictures: PictureSet) -> None:
    spoil(pictures, *range(4, CLASSES * EACH))
    batch = next(load(pictures, sampler=Fixed(0, 4, 8)))
    assert batch.labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_readable_ends_in_one_line(pictures: PictureSet, workers: int) -> None:
    spoil(pictures, *range(CLASSES * EACH))
    with pytest.raises(UserError, match="none of the training pictures"):
        list(load(pictures, workers))
    assert threads() == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_pictures_stop_the_run(pictures: PictureSet, workers: int) -> None:
    spoil(pictures, 0, 5, 10)
    with pytest.raises(
        UserError, match=r"3 of 24 pictures .*12\.5%.*--max_bad_pictures=0\.1 .*00\.png.*05\.png"
    ) as error:
        list(load(pictures, workers, sampler=Fixed(*range(24)), bad=BadPictures(24, 0.1)))
    assert "\n" not in str(error.value)
    assert len(list(load(pictures, workers, sampler=Fixed(*range(24)), bad=BadPictures(24, 0.125)))) == 6


def test_bad_pictures_count_once_and_from_many_threads() -> None:
    bad = BadPictures(1000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: bad.add(f"{k % 10}.jpg", PictureError(f"{k % 10}.jpg: cut off")), range(400)))
    assert len(bad) == 10
    assert bad.lines()[0] == "0.jpg: cut off"
    with pytest.raises(UserError, match=r"11 of 1000 pictures cannot be read \(1\.1%\)"):
        bad.add("new.jpg", PictureError("new.jpg: empty file"))
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="--max_bad_pictures"):
            BadPictures(10, share)


# ---- errors and early ends


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_keeps_its_type(pictures: PictureSet, workers: int) -> None:
    class OddError(Exception):
        pass

    def transform(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        raise OddError("odd")

    with pytest.raises(OddError, match="odd"):
        list(load(pictures, workers, transform=transform))
    assert threads() == 0


@pytest.mark.parametrize("how", ["close", "drop", "raise"])
def test_an_early_end_leaves_no_thread(pictures: PictureSet, how: str) -> None:
    batches = load(pictures, workers=3, stop=10_000)
    next(batches)
    assert threads() > 0
    start = time.perf_counter()
    if how == "close":
        batches.close()
    elif how == "raise":
        with pytest.raises(RuntimeError), contextlib.closing(batches):
            raise RuntimeError
    del batches
    gc.collect()
    assert threads() == 0
    assert time.perf_counter() - start < 5


def test_an_early_end_does_not_wait_for_whole_batches(pictures: PictureSet) -> None:
    def slow(picture: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], Window]:
        time.sleep(0.05)
        return TrainTransform(SPEC)(picture, rng)

    batches = load(pictures, 2, stop=1000, transform=slow, sampler=Fixed(*[0] * 20))
    next(batches)
    start = time.perf_counter()
    batches.close()
    assert time.perf_counter() - start < 0.6


def test_prefetch_is_bounded(pictures: PictureSet) -> None:
    asked = []

    class Counting(Fixed):
        def batch(self, step: int) -> NDArray[np.int64]:
            asked.append(step)
            return self.indices

    batches = load(pictures, 3, stop=1000, sampler=Counting(0, 1))
    next(batches)
    time.sleep(0.2)
    assert len(asked) <= 5
    batches.close()


@pytest.mark.parametrize("workers", [-1, float("nan")])
def test_senseless_numbers_are_refused_at_once(pictures: PictureSet, workers: int) -> None:
    with pytest.raises(UserError, match="--num_workers"):
        load(pictures, workers)
    with pytest.raises(UserError, match="--num_workers"):
        test_batches(pictures.paths, SPEC, 4, workers, BadPictures(1))
    with pytest.raises(UserError, match="--test_batch_size"):
        test_batches(pictures.paths, SPEC, 0, 0, BadPictures(1))


def test_a_kill_leaves_nothing_behind_and_the_rest_is_the_same(pictures: PictureSet, tmp_path: Path) -> None:
    program = f"""
        import hashlib
        from metric_learning.data.loader import BadPictures, train_batches
        from metric_learning.data.samplers import ClassSampler
        from metric_learning.data.sources import PictureSet, Sample
        from metric_learning.data.transforms import PictureSpec, TrainTransform

        paths = {list(pictures.paths)!r}
        pictures = PictureSet.of(Sample(path, f"{{k // {EACH}}}") for k, path in enumerate(paths))
        spec = PictureSpec((3, 16, 16))
        sampler, transform = ClassSampler(pictures.labels, 8, 2, 7), TrainTransform(spec, color_jitter=0.2)
        batches = train_batches(pictures, sampler, transform, spec, seed=7,
            start_step=0, stop_step=10**9, workers=2, bad=BadPictures(24))
        for batch in batches:
            print(hashlib.sha256(batch.images.tobytes()).hexdigest(), flush=True)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(4)]
        process.send_signal(signal.SIGKILL)
        # The pipe ends only when every process that holds it has gone.
        process.stdout.read()
        assert process.wait(10) == -signal.SIGKILL
    expected = [hashlib.sha256(batch.images.tobytes()).hexdigest() for batch in load(pictures, stop=4)]
    assert lines == expected


# ---- parts of a batch, one a process


def joined_parts(pictures: PictureSet, size: int, **changed: object) -> list[Batch]:
    """The batches of `size` ranks put together, each rank with a count of bad pictures of its own."""
    ranks = [list(load(pictures, part=(rank, size), **changed)) for rank in range(size)]
    found = []
    for parts in zip(*ranks, strict=True):
        columns = zip(*(part[1:6] for part in parts), strict=True)
        images, labels, indices, paths, windows = columns
        sums = [[item for part in column for item in part] for column in (paths, windows)]
        found.append(Batch(parts[0].step, *map(np.concatenate, (images, labels, indices)), *sums))
    return found


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("spoiled", [(), (0, 3, 5), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15)])
def test_the_parts_of_all_ranks_are_the_batch(pictures: PictureSet, size: int, spoiled: tuple[int, ...]) -> None:
    spoil(pictures, *spoiled)
    whole = list(load(pictures))
    parts = joined_parts(pictures, size)
    assert digest(parts) == digest(whole)
    assert [batch.windows for batch in parts] == [batch.windows for batch in whole]
    slots = [[*next(load(pictures, part=(rank, size))).places()] for rank in range(size)]
    assert [slot for part in slots for slot in part] == [*whole[0].places()] and whole[0].whole == len(whole[0].labels)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_agree_on_stand_ins_for_classes_that_others_read(pictures: PictureSet, size: int) -> None:
    # Classes 0 and 2 are dead, in slots of different ranks; the second must not take the stand-in of the first.
    dead = [k for label in (0, 2) for k in range(EACH * label, EACH * label + EACH)]
    spoil(pictures, *dead)
    for first, second in ((0, 2 * EACH), (2 * EACH, 0)):
        sampler = Fixed(first, 3 * EACH, first + 1, second)
        whole = next(load(pictures, sampler=sampler))
        assert len({int(label) for label in whole.labels}) == 3
        assert digest(joined_parts(pictures, size, sampler=sampler, stop=1)) == digest([whole])


def test_parts_that_do_not_fit_are_refused_at_once(pictures: PictureSet) -> None:
    with pytest.raises(UserError, match="--train_batch_size=8 must be a multiple of 3, the number of processes; try 6"):
        load(pictures, part=(0, 3))
    with pytest.raises(UserError, match="rank"):
        load(pictures, part=(2, 2))


# ---- test batches


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_test_batches_come_in_order(pictures: PictureSet, workers: int, flip: bool) -> None:
    spoil(pictures, 2, 8, 9, 10, 11)
    bad = BadPictures(len(pictures), 1.0)
    batches = list(test_batches(pictures.paths[:14], SPEC, 4, workers, bad, flip=flip))
    assert [indices.tolist() for indices, _ in batches] == [[0, 1, 3], [4, 5, 6, 7], [12, 13]]
    assert len(bad) == 5
    transform = TestTransform(SPEC)
    for indices, images in batches:
        assert indices.dtype == np.int64
        plain = [transform(read_picture(pictures.paths[index])) for index in indices]
        expected = to_batch(plain, SPEC)
        assert np.array_equal(images, expected[..., ::-1] if flip else expected)
        assert images.flags.c_contiguous


def test_test_batches_of_nothing_and_stopped_early(pictures: PictureSet) -> None:
    assert list(test_batches([], SPEC, 4, 2, BadPictures(0))) == []
    batches = test_batches(list(pictures.paths) * 50, SPEC, 2, 2, BadPictures(24))
    next(batches)
    del batches
    gc.collect()
    assert threads() == 0


def test_shuffled_epochs_load_every_picture(pictures: PictureSet) -> None:
    sampler = ShuffleSampler(len(pictures), 8, seed=1)
    batches = list(load(pictures, 2, stop=3, sampler=sampler))
    assert sorted(np.concatenate([batch.indices for batch in batches]).tolist()) == list(range(24))


def test_the_module_starts_no_thread_on_import() -> None:
    assert threads() == 0
    assert loader.Batch._fields == ("step", "images", "labels", "indices", "paths", "windows", "slots", "whole")
