"""Fetch Stanford Online Products (Song et al., CVPR 2016): python -m metric_learning.data.sop --data_dir=DIR

The archive (2.9 GB) is loaded into DIR.download beside DIR; a run that was stopped goes on where it was. DIR appears at
the end, whole, by one rename. Needs about 6 GB of disk.
"""

import argparse
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import stat
import struct
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from metric_learning.checks import UserError
from metric_learning.data.command import Parser, run
from metric_learning.data.lists import read_sop_list
from metric_learning.files import one_line

URL = "http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip"
# Of the archive at URL, as published by torch's metric-learning loaders; other addresses are checked by size and CRC.
URL_MD5 = "7f73d41a2f44250d4779881525aea32e"
LISTS = ("Ebay_train.txt", "Ebay_test.txt")
ATTEMPTS = 3
GROWTH, SLACK = 4, 1 << 26  # what may come out of an archive: so many times its size, and bytes for the lists
CHUNK = 1 << 20


def fetch_sop(target: str | Path, url: str = URL, timeout: float = 30.0) -> Path:
    """Load, check and unpack the archive at `url` so that `target` holds the two lists and the pictures.

    Returns `target`, at once if it is there already. timeout: seconds without a byte. Raises UserError where there is
    no network, the server's file is not the archive, the disk is full, or `target` holds something else.
    """
    target = Path(target).absolute()
    if not target.name:
        raise UserError(f"--data_dir={target}: give a folder that can be made anew.")
    if all((target / name).is_file() for name in LISTS):
        return target
    work = target.with_name(target.name + ".download")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{target} holds something else already; give --data_dir a new or an empty folder.")
        work.mkdir(parents=True, exist_ok=True)
        archive = _download(url, work, timeout)
        _unpack(archive, work / "unpacked", URL_MD5 if url == URL else None)
        if target.exists():
            target.rmdir()
        os.rename(work / "unpacked", target)
        shutil.rmtree(work)
    except OSError as error:
        raise UserError(f"{error.filename or work}: {error.strerror or error}; mend that and run again.") from error
    finally:
        if work.is_dir() and not any(work.iterdir()):
            work.rmdir()
    return target


# What zipfile raises for an archive that is damaged, or made to do damage; names that can't lie beside each other, too.
_UNUSABLE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
    UserError,
)
_UNUSABLE += (LookupError, FileExistsError, NotADirectoryError, IsADirectoryError)


# ---- the network


def _download(url: str, work: Path, timeout: float) -> Path:
    """The whole archive, from wherever an earlier run stopped."""
    archive, reason = work / "archive.zip", ""
    for _ in range(ATTEMPTS):
        try:
            if _go_on(url, archive, timeout):
                return archive
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            raise UserError(f"{url}: the server answers {error.code} {error.reason}; give another --url.") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        except ValueError as error:
            raise UserError(f"{url} is not an address that can be fetched: {error}; check --url.") from error
    done = archive.stat().st_size if archive.exists() else 0
    raise UserError(f"{url} cannot be fetched ({reason}; {done} bytes are here); run again with a network to go on.")


def _go_on(url: str, archive: Path, timeout: float) -> bool:
    """Ask for the missing bytes and write what comes; True when the file has the size that the server names."""
    known = _recall(archive, url)
    have = archive.stat().st_size if known and archive.exists() else 0
    if have and have == known.get("size"):
        return True
    headers = {"Range": f"bytes={have}-", "If-Range": known["version"]} if have else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
        have, size = _place(response, have)
        if size is None:
            raise UserError(f"{url}: the server does not say how long the file is; give another --url.")
        if not size:
            raise UserError(f"{url}: the file there is empty; give another --url.")
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        _check_space(archive.parent, size, have)
        _note(archive).write_text(json.dumps({"url": url, "version": version, "size": size}), encoding="utf-8")
        with open(archive, "r+b" if have else "wb") as file:
            file.truncate(have)
            file.seek(have)
            _copy(response, file, have, size)
    return archive.stat().st_size == size


def _place(response: Any, have: int) -> tuple[int, int | None]:
    """(the byte that the answer begins with, the whole size): the server may ignore the range and start afresh."""
    if getattr(response, "status", None) == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != have:
            raise http.client.HTTPException("the server sent another range than it was asked for")
        return have, int(match[2])
    length = response.headers.get("Content-Length")
    return 0, int(length) if length else None


def _copy(response: Any, file: Any, have: int, size: int) -> None:
    shown = have * 20 // size
    while block := response.read(CHUNK):
        file.write(block)
        have += len(block)
        if have * 20 // size > shown:
            shown = have * 20 // size
            print(f"{have / 1e6:.0f} of {size / 1e6:.0f} MB", file=sys.stderr, flush=True)


def _note(archive: Path) -> Path:
    return archive.with_suffix(".json")


def _recall(archive: Path, url: str) -> dict[str, Any]:
    """What the server said of the file when it was begun; {} where it cannot be gone on with."""
    try:
        known = json.loads(_note(archive).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    # Without a version nothing shows that the file on the server is still the one that was begun.
    return known if isinstance(known, dict) and known.get("url") == url and known.get("version") else {}


def _check_space(folder: Path, size: int, have: int) -> None:
    free, needed = shutil.disk_usage(folder).free, 2 * size - have
    if free < needed:
        raise UserError(f"{folder}: {needed / 1e9:.1f} GB are needed to load and unpack, {free / 1e9:.1f} GB are free.")


# ---- the archive


def _unpack(archive: Path, folder: Path, md5: str | None) -> None:
    """Unpack the two lists and the pictures that they name into `folder`, and check that all are there."""
    try:
        _check_digest(archive, md5)
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened)
            shutil.rmtree(folder, ignore_errors=True)
            for path, member in members.items():
                _extract(opened, member, folder / path)
        _check_lists(folder)
    except _UNUSABLE as error:
        # It has the size that the server names, so going on with it cannot mend it.
        archive.unlink()
        raise UserError(
            f"the archive is not usable and was removed: {one_line(error)}; run again, or give another --url."
        ) from error


def _check_digest(archive: Path, md5: str | None) -> None:
    if md5 is None:
        return
    with open(archive, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise UserError(f"its MD5 is {found}, not {md5}")


def _members(opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """{path inside the target: member} of the texts and pictures beside the lists; an unsafe name is an error."""
    infos = [info for info in opened.infolist() if not info.is_dir()]
    for info in infos:
        mode = info.external_attr >> 16
        if not _is_safe(info.filename) or stat.S_ISLNK(mode):
            raise UserError(f"it holds an unsafe name: {info.filename[:80]!r}")
    roots = [info.filename[: -len(LISTS[0])] for info in infos if info.filename.split("/")[-1] == LISTS[0]]
    if not roots:
        raise UserError(f"it holds no {LISTS[0]}")
    root = min(roots, key=len)
    inside = {info.filename[len(root) :]: info for info in infos if info.filename.startswith(root)}
    wanted = {path: info for path, info in inside.items() if path.lower().endswith((".jpg", ".jpeg", ".txt"))}
    _check_members(wanted, Path(str(opened.filename)).stat().st_size)
    return wanted


def _check_members(members: dict[str, zipfile.ZipInfo], size: int) -> None:
    """No more may come out than pictures, which hardly shrink, can hold in an archive of this size."""
    for name, info in members.items():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{name[:80]!r} is packed in a way that no archive of pictures is")
    total = sum(info.file_size for info in members.values())  # zipfile stops there, whatever comes out
    if total > GROWTH * size + SLACK:
        raise UserError(f"{total / 1e9:.1f} GB would come out of {size / 1e9:.1f} GB")


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return not any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in parts)


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # zipfile compares the CRC when the end is read.
    with _opened(opened, member) as source, open(path, "xb") as file:
        shutil.copyfileobj(source, file, CHUNK)


def _opened(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return opened.open(member)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the directory names a place before the file
            raise
        raise zipfile.BadZipFile(f"there is no {member.filename[:80]!r} where it should be") from error


def _check_lists(folder: Path) -> None:
    for name in LISTS:
        missing = [sample.path for sample in read_sop_list(folder / name) if not os.path.isfile(sample.path)]
        if missing:
            raise UserError(f"{name} names {len(missing)} pictures that are not in it, {Path(missing[0]).name} first")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser("sop", "Fetch Stanford Online Products (2.9 GB); goes on where it was stopped.")
    parser.add_argument("--data_dir", required=True, help="where the lists and pictures go; a new or an empty folder")
    parser.add_argument("--url", default=URL, help="another address of the same archive (default: %(default)s)")

    def fetch(options: argparse.Namespace) -> None:
        print(f"Stanford Online Products is in {fetch_sop(options.data_dir, options.url)}")

    return run(parser, fetch, arguments)


if __name__ == "__main__":
    sys.exit(main())
