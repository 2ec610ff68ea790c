"""infer.py --serve as a command: what it refuses, a real server, how it ends."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
import pytest
from cli_cases import refused, run
from serve_cases import CALIBRATION, MODEL, RED, form, picture, service

from metric_learning import serve as package
from metric_learning.checks import UserError
from metric_learning.config import InferOptions, parse
from metric_learning.data.transforms import PictureSpec
from metric_learning.embedder import ClassesOf, Embedder, EmbedderSpec, save_embedder
from metric_learning.losses.classifier import Classifier
from metric_learning.serve import limits
from metric_learning.serve.app import make_app
from metric_learning.serve.server import serve
from metric_learning.stages.voting import classifies

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen
    host: str
    port: int
    said: list[str]

    def ask(self, method: str, path: str, body=None, headers=None):
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=30)) as link:
            link.request(method, path, body, headers or {})
            answer = link.getresponse()
            return answer.status, answer.read()

    def post(self, path: str, **files: bytes):
        body, kind = form(**files)
        status, said = self.ask("POST", path, body, {"Content-Type": kind})
        return status, json.loads(said)


@contextlib.contextmanager
def serving(folder: Path, *arguments: str):
    """infer.py --serve in this folder, on a free port, from its first answer on."""
    command = [sys.executable, str(ROOT / "infer.py"), "--serve", "--port=0", "--use_gpu=False", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.match(r"Page: http://(.+):(\d+) ", line):
                yield Server(process, found[1], int(found[2]), said)
                return
        pytest.fail(f"it did not start: {said}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def write_weights(folder: Path, calibration=CALIBRATION, seed: int = 0) -> Path:
    paddle.seed(seed)
    embedder = Embedder(EmbedderSpec("SmallCNN", 8, PictureSpec((3, 32, 32), test_crop=1.0)))
    save_embedder(folder / "net.safetensors", embedder, {}, calibration)
    return folder / "net.safetensors"


# ---- refusals


def test_options_that_do_not_go_with_it():
    for typed in (["--pair", "a", "b"], ["--query=a"], ["--input=a"], ["--pairs=a.csv"]):
        refused(run("infer", "--serve", *typed), "--serve", "different jobs")
    refused(run("infer", "--host=0.0.0.0"), "--host has no meaning without --serve")
    refused(run("infer", "--serve=False", "--port=80"), "--port has no meaning without --serve")
    refused(run("infer", "--serve", "--port=65536"), "at most 65535")
    refused(run("infer", "--serve", "--top_k=101"), "--top_k", "at most 100")
    refused(run("infer", "--serve", "--vote=hard", "--pretrained_model=a,b"), "")


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(package, "find_spec", lambda name: None if name == "waitress" else object())
    said = refused(run("infer", "--serve", f"--model_save_dir={tmp_path}"), "needs waitress", "pip install waitress")
    assert "flask" not in said


def test_a_classifier_is_served_as_an_embedder(tmp_path):
    spec = EmbedderSpec("SmallCNN", 8, PictureSpec((3, 32, 32), test_crop=1.0))
    known = ClassesOf(["no", "yes"], Classifier(np.ones((2, 8), np.float32), None, True))
    save_embedder(tmp_path / "c.safetensors", Embedder(spec), {}, classes=known)
    config = [f"--pretrained_model={tmp_path}/c.safetensors"]
    assert classifies(parse(InferOptions, config)) and not classifies(parse(InferOptions, [*config, "--serve"]))
    refused(run("infer", *config, "--serve", "--vote=hard"), "--vote", "--serve about embeddings")


def test_a_gallery_that_is_not_there_or_of_others(tmp_path):
    weights = write_weights(tmp_path)
    typed = [f"--pretrained_model={weights}", "--use_gpu=False", "--serve"]
    refused(run("infer", *typed, f"--output={tmp_path}/none.npz"), "none.npz")
    refused(run("infer", *typed, f"--gallery={tmp_path}/none"), "none/gallery.npz")
    (tmp_path / "a.png").write_bytes(RED)
    made = run("infer", *typed[:2], f"--input={tmp_path}/a.png", f"--output={tmp_path}/g.npz")
    assert made.status == 0, made
    (tmp_path / "other").mkdir()
    other = write_weights(tmp_path / "other", seed=1)
    refused(run("infer", f"--pretrained_model={other}", *typed[1:], f"--output={tmp_path}/g.npz"), "other weights")


def test_a_port_that_is_taken():
    made = service()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port}: Address already in use"):
            serve(make_app(made, MODEL), "127.0.0.1", port, print)
    with pytest.raises(UserError, match="Can't listen on no such host"):
        serve(make_app(made, MODEL), "no such host", 0, print)
    made.close()


# ---- a real server


@pytest.mark.slow
def test_it_answers_many_at_once_and_ends_cleanly(tmp_path):
    weights = write_weights(tmp_path)
    with serving(tmp_path, f"--pretrained_model={weights}") as server:
        assert server.host == "127.0.0.1" and any("compares only" in line for line in server.said)
        assert json.loads(server.ask("GET", "/health")[1])["model"]["name"] == "SmallCNN"
        status, found = server.post("/api/compare", a=RED, b=RED)
        assert status == 200 and found["same"] is True and found["similarity"] > 0.99
        assert server.post("/api/compare", a=RED, b=b"x")[0] == 422
        status, said = server.post("/api/compare", a=RED, b=bytes(3 * limits.MAX_FILE))
        assert status == 413 and "too large" in said["error"]
        # Far too much is refused before it is sent, and the next one is answered all the same.
        with socket.create_connection((server.host, server.port), timeout=30) as link:
            link.sendall(b"POST /api/compare HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
            assert link.recv(100).startswith(b"HTTP/1.1 413")
        with socket.create_connection((server.host, server.port), timeout=30) as link:
            link.sendall(b"nonsense\r\n\r\n")
            assert link.recv(100).startswith(b"HTTP/1.0 400")
        others = [picture((9, 40 * i, 200)) for i in range(6)]
        alone = [server.post("/api/compare", a=RED, b=other) for other in others]
        with ThreadPoolExecutor(6) as pool:
            together = list(pool.map(lambda other: server.post("/api/compare", a=RED, b=other), others * 4))
        assert together == alone * 4 and len({str(found) for found in alone}) == 6
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert server.process.stdout.read() == "Stopped.\n"


@pytest.mark.slow
def test_ctrl_c_ends_it_and_another_host_is_warned_of(tmp_path):
    weights = write_weights(tmp_path, None)
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(picture((80 * i, 20, 99)))
    names = [f"--pretrained_model={weights}", f"--gallery={tmp_path}/g", "--use_gpu=False"]
    assert run("infer", *names, f"--input={tmp_path}/pictures").status == 0
    with serving(tmp_path, *names, "--host=0.0.0.0", "--threshold=0.9") as server:
        assert any(line.startswith("WARNING: --host=0.0.0.0") for line in server.said)
        assert any("(3 pictures)" in line for line in server.said)
        server.host = "127.0.0.1"
        status, found = server.post("/api/search?top_k=2", picture=picture((80, 20, 99)))
        assert status == 200 and found["results"][0]["name"] == "1.png" and found["results"][0]["same"] is True
        assert server.ask("GET", "/api/gallery/1")[0] == 200
        begun = time.monotonic()
        os.kill(server.process.pid, signal.SIGINT)
        assert server.process.wait(20) == 0 and time.monotonic() - begun < 10
