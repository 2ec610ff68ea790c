import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from metric_learning.checks import UserError
from metric_learning.data import sop
from metric_learning.data.sop import fetch_sop, main
from metric_learning.data.splits import load_splits

HEADER = "image_id class_id super_class_id path\n"
TOP = "Stanford_Online_Products/"


def archive(**changed: bytes | None) -> bytes:
    """A small archive as the real one is laid out; `changed` replaces a member, or drops it (None)."""
    members: dict[str, bytes | None] = {
        TOP + "Ebay_train.txt": (HEADER + "1 1 1 bicycle_final/1.JPG\n2 2 1 bicycle_final/2.JPG\n").encode(),
        TOP + "Ebay_test.txt": (HEADER + "3 3 1 chair_final/3.JPG\n").encode(),
        TOP + "Ebay_info.txt": b"info",
        TOP + "bicycle_final/1.JPG": bytes(range(256)) * 40,
        TOP + "bicycle_final/2.JPG": bytes(range(255, -1, -1)) * 40,
        TOP + "chair_final/3.JPG": b"three" * 1000,
        TOP + "run.sh": b"echo no",
        "__MACOSX/" + TOP + "._Ebay_train.txt": b"x",
        **changed,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as opened:
        for name, content in members.items():
            if content is not None:
                opened.writestr(name, content)
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves one file at /a.zip, with ranges; `cuts` lists after how many bytes each answer breaks off."""

    content = archive()
    version: str | None = '"one"'
    ranges = True
    shift = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.asked: list[tuple[str | None, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/a.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
        self.server.asked.append((wanted, version))
        if self.path.split("?")[0] != "/a.zip":
            self.send_error(404)
            return
        content, start = self.server.content, 0
        if wanted and self.server.ranges and version == self.server.version:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start + self.server.shift}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if self.server.version:
            self.send_header("ETag", self.server.version)
        self.end_headers()
        stop = self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start : start + stop])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_the_archive_becomes_a_folder_that_the_loader_knows(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "new" / "sop"
    assert fetch_sop(target, server.url) == target
    names = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    lists = ["Ebay_info.txt", "Ebay_test.txt", "Ebay_train.txt"]
    assert names == [*lists, "bicycle_final/1.JPG", "bicycle_final/2.JPG", "chair_final/3.JPG"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["sop"]
    splits = load_splits(target)
    assert (splits.kind, len(splits.train), len(splits.test)) == ("sop", 2, 1)
    assert fetch_sop(target, server.url) == target
    assert len(server.asked) == 1


def test_an_interrupted_download_goes_on_within_a_run(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 5000]
    fetch_sop(tmp_path / "sop", server.url)
    assert server.asked == [(None, None), ("bytes=1000-", '"one"'), ("bytes=6000-", '"one"')]


def test_an_interrupted_download_goes_on_in_the_next_run(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 1000, 1000]
    with pytest.raises(UserError, match=r"3000 bytes are here.*run again"):
        fetch_sop(tmp_path / "sop", server.url)
    assert not (tmp_path / "sop").exists()
    assert len((tmp_path / "sop.download" / "archive.zip").read_bytes()) == 3000
    fetch_sop(tmp_path / "sop", server.url)
    assert server.asked[-1] == ("bytes=3000-", '"one"')
    assert (tmp_path / "sop" / "bicycle_final" / "2.JPG").read_bytes() == bytes(range(255, -1, -1)) * 40


@pytest.mark.parametrize("change", ["version", "no ranges", "no version", "url"])
def test_what_cannot_be_gone_on_with_begins_anew(server: Server, tmp_path: Path, change: str) -> None:
    if change == "no version":
        server.version = None
    server.cuts = [1000, 1, 1]
    with pytest.raises(UserError):
        fetch_sop(tmp_path / "sop", server.url)
    if change == "version":
        server.version, server.content = '"two"', archive(**{TOP + "Ebay_info.txt": b"another"})
    elif change == "no ranges":
        server.ranges = False
    fetch_sop(tmp_path / "sop", server.url + "?again" if change == "url" else server.url)
    assert (server.asked[-1] == (None, None)) == (change in ("no version", "url"))
    assert (tmp_path / "sop" / "chair_final" / "3.JPG").read_bytes() == b"three" * 1000


def test_a_server_that_sends_another_range_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.cuts, server.shift = [1000], 7
    with pytest.raises(UserError, match=r"another range.*1000 bytes are here"):
        fetch_sop(tmp_path / "sop", server.url)


def test_a_kill_while_unpacking_starts_that_again_without_the_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sop, "_check_lists", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch_sop(tmp_path / "sop", server.url)
    assert not (tmp_path / "sop").exists()
    fetch_sop(tmp_path / "sop", server.url)
    assert len(server.asked) == 1


def damaged() -> bytes:
    content = bytearray(archive())
    content[content.index(b"three") + 50] ^= 1
    return bytes(content)


def link() -> bytes:
    buffer = io.BytesIO(archive())
    with zipfile.ZipFile(buffer, "a") as opened:
        info = zipfile.ZipInfo(TOP + "bicycle_final/9.JPG")
        info.external_attr = 0o120777 << 16
        opened.writestr(info, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>moved</html>", "not a zip file"),
        (archive()[:-30], "not a zip file"),
        (damaged(), "Bad CRC"),
        (archive(**{"../evil.jpg": b"x"}), "unsafe name: '../evil.jpg'"),
        (archive(**{"/evil.jpg": b"x"}), "unsafe name"),
        (archive(**{TOP + "a/../../../evil.jpg": b"x"}), "unsafe name"),
        (archive(**{TOP + "..\\evil.jpg": b"x"}), "unsafe name"),
        (archive(**{"C:/evil.jpg": b"x"}), "unsafe name"),
        (link(), "unsafe name"),
        (archive(**{TOP + "Ebay_train.txt": None}), "holds no Ebay_train"),
        (archive(**{TOP + "Ebay_test.txt": None}), "Ebay_test.txt cannot be read"),
        (archive(**{TOP + "Ebay_train.txt": b"wrong\n"}), "header must be"),
        (archive(**{TOP + "chair_final/3.JPG": None}), "names 1 pictures that are not in it, 3.JPG"),
    ],
)
def test_bad_archives_leave_nothing_unpacked(server: Server, tmp_path: Path, content: bytes, message: str) -> None:
    server.content = content
    target = tmp_path / "in" / "sop"
    with pytest.raises(UserError, match=message) as error:
        fetch_sop(target, server.url)
    assert "\n" not in str(error.value)
    assert not target.exists()
    assert not (tmp_path / "in" / "sop.download" / "archive.zip").exists()
    assert not list(tmp_path.rglob("evil*"))
    server.content = archive()
    assert fetch_sop(target, server.url) == target


def test_the_known_address_is_checked_by_its_digest(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sop, "URL", server.url)
    with pytest.raises(UserError, match="its MD5 is"):
        fetch_sop(tmp_path / "sop", server.url)


def test_an_empty_folder_is_filled_and_a_full_one_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fetch_sop(tmp_path / "empty", server.url)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for name in ("full", "full/x"):
        with pytest.raises(UserError, match="holds something else"):
            fetch_sop(tmp_path / name, server.url)


def test_a_full_disk_is_told_before_anything_is_loaded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sop.shutil, "disk_usage", lambda folder: sop.shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match="GB are free"):
        fetch_sop(tmp_path / "sop", server.url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.zip", "http://nowhere.invalid/a.zip", "nonsense", "file:///none.zip"]
)
def test_no_network_is_one_line_and_status_2(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--data_dir={tmp_path / 'sop'}", f"--url={url}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("python -m metric_learning.data.sop: ") and url in captured.err
    assert list(tmp_path.iterdir()) == []


def test_missing_file_on_the_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="answers 404"):
        fetch_sop(tmp_path / "sop", server.url.replace("a.zip", "b.zip"))


def test_an_empty_file_on_the_server(server: Server, tmp_path: Path) -> None:
    server.content = b""
    with pytest.raises(UserError, match="the file there is empty"):
        fetch_sop(tmp_path / "sop", server.url)


def test_ctrl_c_ends_it_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sop, "fetch_sop", stopped)
    assert main([f"--data_dir={tmp_path / 'sop'}"]) == 130
    assert capsys.readouterr().err == "python -m metric_learning.data.sop: interrupted.\n"
    assert main(["--data=x"]) == 2 and main(["--data_dir=/"]) == 130


def test_the_command_says_where_it_is(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--data_dir={tmp_path / 'sop'}", f"--url={server.url}"]) == 0
    assert str(tmp_path / "sop") in capsys.readouterr().out
