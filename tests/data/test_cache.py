import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metric_learning.checks import UserError
from metric_learning.data.cache import PictureCache
from metric_learning.data.loader import BadPictures, Batch, train_batches
from metric_learning.data.pictures import Jpeg, PictureError, open_picture
from metric_learning.data.samplers import AUGMENT, ShuffleSampler, SlotRngs, keyed_rng
from metric_learning.data.sources import PictureSet, Sample
from metric_learning.data.transforms import PictureSpec, TrainTransform

SPEC = PictureSpec((3, 48, 48))
SIDE = 200


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    samples = []
    for number in range(12):
        picture = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        path = tmp_path / f"{number:02d}.{'png' if number % 4 == 3 else 'jpg'}"
        assert cv2.imwrite(str(path), cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
        samples.append(Sample(str(path), f"{number % 3}"))
    return PictureSet.of(samples)


def load(pictures: PictureSet, **changed: object) -> Iterator[Batch]:
    told = {"start_step": 0, "stop_step": 12, "workers": 0, "bad": BadPictures(len(pictures), 1.0), **changed}
    return train_batches(pictures, ShuffleSampler(12, 4, 7), TrainTransform(SPEC), SPEC, seed=7, **told)


def images(batches: Iterator[Batch]) -> NDArray[np.float32]:
    return np.stack([batch.images for batch in batches])


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("megabytes", [1, 2, 100])
def test_batches_are_the_same_with_a_cache(pictures: PictureSet, workers: int, megabytes: int) -> None:
    assert np.array_equal(images(load(pictures)), images(load(pictures, workers=workers, cache_mb=megabytes)))


def test_what_was_read_is_not_read_again(pictures: PictureSet) -> None:
    expected, bad = images(load(pictures, stop_step=90)), BadPictures(12, 1.0)
    batches = load(pictures, stop_step=90, cache_mb=100, bad=bad)
    found = [next(batches).images for _ in range(60)]  # by now each was asked for at each of its sizes
    for path in pictures.paths:
        Path(path).unlink()
    found += [batch.images for batch in batches]
    assert np.array_equal(np.stack(found), expected)
    assert len(bad) == 0


def test_the_memory_is_bounded(pictures: PictureSet) -> None:
    cache = PictureCache(1)
    for _ in range(2):
        for path in pictures.paths:
            found = cache.open(path)
            for by in (1, 2, 4):
                assert isinstance(found, np.ndarray) or found.pixels(by).shape[0] == SIDE // by
    held = sum(picture.nbytes for picture in cache._kept.values())
    assert 0.7 * 2**20 < held <= 2**20
    assert cache._free >= 0


def test_many_threads_keep_each_picture_once(pictures: PictureSet) -> None:
    cache = PictureCache(100)

    def work() -> None:
        for path in pictures.paths:
            found = cache.open(path)
            if not isinstance(found, np.ndarray):
                found.pixels(2)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache._kept) == 12
    assert 100 * 2**20 - cache._free == sum(picture.nbytes + 500 for picture in cache._kept.values())


def test_what_has_changed_or_gone_meanwhile_is_named(pictures: PictureSet) -> None:
    cache, path = PictureCache(100), pictures.paths[0]
    first = cache.open(path)
    assert not isinstance(first, np.ndarray)
    first.pixels(2)
    assert cv2.imwrite(path, np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(PictureError, match=r"00\.jpg: it has changed"):
        cache.open(path).pixels(1)
    Path(path).unlink()
    with pytest.raises(PictureError, match=r"00\.jpg: No such file"):
        cache.open(path).pixels(1)
    assert cache.open(path).pixels(2).shape == (100, 100, 3)


@pytest.mark.parametrize("cache_mb", [0, 10])
def test_a_jpeg_that_is_cut_off_is_named_and_replaced(pictures: PictureSet, cache_mb: int) -> None:
    for number in (0, 4):
        data = Path(pictures.paths[number]).read_bytes()
        Path(pictures.paths[number]).write_bytes(data[: len(data) * 2 // 3])
    bad = BadPictures(12, 1.0)
    batches = list(load(pictures, bad=bad, cache_mb=cache_mb))
    assert [line.split(": ")[0] for line in bad.lines()] == [pictures.paths[0], pictures.paths[4]]
    assert not {0, 4} & {int(index) for batch in batches for index in batch.indices}


def test_less_than_nothing_is_refused(pictures: PictureSet) -> None:
    with pytest.raises(UserError, match="--cache_mb"):
        load(pictures, cache_mb=-1)


def test_a_jpeg_waits_and_others_do_not(pictures: PictureSet) -> None:
    assert isinstance(open_picture(pictures.paths[0]), Jpeg)
    assert isinstance(open_picture(pictures.paths[3]), np.ndarray)


def test_the_generators_of_slots_are_those_of_keyed_rng() -> None:
    rngs = SlotRngs(AUGMENT, 3, 2**40)
    for slot in (0, 5, 5, 1, 2**40):
        one, other = rngs.at(slot), keyed_rng(AUGMENT, 3, 2**40, slot)
        one.integers(7, size=3, dtype=np.uint32)  # leaves half a word behind, which the next must not see
        other.integers(7, size=3, dtype=np.uint32)
        assert np.array_equal(one.random(3), other.random(3))
        assert one.integers(1000) == other.integers(1000)
