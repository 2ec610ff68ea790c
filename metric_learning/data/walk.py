"""Find the pictures below a folder, in an order that does not depend on the file system."""

import os
from collections.abc import Iterator
from pathlib import Path

from metric_learning.checks import UserError

PICTURE_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".pnm", ".webp", ".tif", ".tiff", ".gif")
)


Names = tuple[str, ...]


def pictures_below(root: Path) -> Iterator[Names]:
    """The pictures under `root` as tuples of names (folder, ..., file), sorted; a UserError where there are none.

    Hidden files, __MACOSX and whatever is not a picture by its extension are passed over. Links are followed, but no
    folder is entered twice, so a circle of links ends. All folders are read before this returns.
    """
    check_folder(root)
    found: dict[Names, bytes] = {}
    seen: set[tuple[int, int]] = set()
    stack: list[Names] = [()]
    while stack:
        names = stack.pop()
        folder = os.path.join(root, *names)
        entries = visible(folder)
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        below = sorted((entry for entry in entries if is_folder(entry)), key=lambda entry: entry.name, reverse=True)
        # Links go to the far end: a picture belongs to the folder that it really lies in, if that is below too.
        stack[:0] = [(*names, entry.name) for entry in below if entry.is_symlink()]
        stack += [(*names, entry.name) for entry in below if not entry.is_symlink()]
        # One object a folder, not one a picture; no name holds a zero byte.
        found[names] = b"\0".join(os.fsencode(entry.name) for entry in entries if is_picture(entry))
    if not any(found.values()):
        kinds = " ".join(sorted(extension[1:] for extension in PICTURE_EXTENSIONS))
        raise UserError(f"{root} holds no pictures (looked for {kinds}); check --data_dir.")
    return _in_order(found)


def _in_order(found: dict[Names, bytes]) -> Iterator[Names]:
    """{folder: its pictures' names} -> (*folder, name) of all pictures, sorted."""
    below: dict[Names, list[str]] = {}
    for names in found:
        if names:
            below.setdefault(names[:-1], []).append(names[-1])

    def inside(folder: Names) -> Iterator[Names]:
        pictures = [os.fsdecode(name) for name in found[folder].split(b"\0") if name]
        return iter(sorted((*folder, name) for name in [*pictures, *below.get(folder, [])]))

    waiting = [inside(())]
    while waiting:
        for names in waiting[-1]:
            if names in found:
                waiting.append(inside(names))
                break
            yield names
        else:
            waiting.pop()


def visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """The entries of a folder but for hidden ones and __MACOSX, in no particular order."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}; check its permissions.") from error


def is_picture(entry: os.DirEntry[str]) -> bool:
    """True for a file, or a link to one, with a picture's extension in either case."""
    if os.path.splitext(entry.name)[1].lower() not in PICTURE_EXTENSIONS:
        return False
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()


def is_folder(entry: os.DirEntry[str]) -> bool:
    """True for a folder or a link to one; False for a link to itself, where DirEntry.is_dir() raises."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def check_folder(root: Path) -> None:
    """Raise a UserError unless `root` is a folder."""
    if not root.exists():
        raise UserError(f"{root} does not exist; check --data_dir.")
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; check --data_dir.")
