"""Decoded training pictures that stay in memory, so that a small set is decoded once."""

import threading

from metric_learning.checks import check_range
from metric_learning.data.pictures import Jpeg, Opened, Picture, PictureError, open_picture

OVERHEAD = 500  # bytes of a picture beside its pixels: its name, its size, its places in the tables


class PictureCache:
    """Keeps pictures as they were decoded, up to `megabytes`; safe to use from several threads.

    A JPEG is kept at each of the sizes that it was asked for, so what comes out is the same with and without a cache.
    What came first stays: every picture is asked for once an epoch, so to drop one for another would gain nothing.
    A file that changes meanwhile is not read again. Pictures that can't be read are not kept.
    """

    def __init__(self, megabytes: int) -> None:
        check_range("--cache_mb", megabytes, 0)
        self._free = megabytes * 2**20
        self._sizes: dict[str, tuple[int, int]] = {}  # of the JPEGs of which something is kept
        self._kept: dict[tuple[str, int], Picture] = {}
        self._lock = threading.Lock()

    def open(self, path: str) -> Opened:
        """What open_picture gives, or what stands for it; PictureError."""
        if path in self._sizes:
            return Kept(self, path, self._sizes[path])
        found = self.get(path, 0)
        if found is not None:
            return found
        opened = open_picture(path)
        if isinstance(opened, Jpeg):
            return Kept(self, path, opened.size, opened)
        self.put(path, 0, opened)
        return opened

    def get(self, path: str, by: int) -> Picture | None:
        return self._kept.get((path, by))

    def has_room(self, pixels: float) -> bool:
        """Whether a picture of so many pixels can be kept."""
        return 3 * pixels + OVERHEAD <= self._free

    def put(self, path: str, by: int, picture: Picture, size: tuple[int, int] | None = None) -> None:
        """Keep it, if there is room. by: as in Jpeg.pixels, 0 for what is not a Jpeg. size: that of the Jpeg."""
        with self._lock:
            if (path, by) in self._kept or not self.has_room(picture.nbytes / 3):
                return
            picture.setflags(write=False)
            self._kept[path, by] = picture
            self._free -= picture.nbytes + OVERHEAD
            if size is not None:
                self._sizes[path] = size


class Kept:
    """A Jpeg whose pixels come from a cache where it has them, and go there where it has room."""

    def __init__(self, cache: PictureCache, path: str, size: tuple[int, int], jpeg: Jpeg | None = None) -> None:
        self.cache, self.path, self.size, self.jpeg = cache, path, size, jpeg

    def pixels(self, by: int = 1, bottom: int | None = None) -> Picture:
        """As Jpeg.pixels; more rows may be there."""
        found = self.cache.get(self.path, by)
        if found is not None:
            return found
        opened = self.jpeg or open_picture(self.path)
        if not isinstance(opened, Jpeg) or opened.size != self.size:
            raise PictureError(f"{self.path}: it has changed since it was read first")
        if not self.cache.has_room(self.size[0] * self.size[1] / by**2):
            return opened.pixels(by, bottom)
        picture = opened.pixels(by)
        self.cache.put(self.path, by, picture, self.size)
        return picture
