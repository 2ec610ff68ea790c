"""Who may ask, how often, how many at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from serve_cases import RED, Halves, asked, service

from metric_learning.serve import limits
from metric_learning.serve.guards import is_loopback
from metric_learning.serve.limits import RateLimit, RequestError


@pytest.fixture(scope="module")
def made():
    made = service()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("bound", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8400", 200),
        ("127.0.0.1", "localhost", 200),
        ("127.0.0.1", "LOCALHOST:9000", 200),  # a tunnel has another port
        ("127.0.0.1", "[::1]:8400", 200),
        ("127.0.0.1", "evil.example:8400", 403),
        ("127.0.0.1", "localhost.evil.example", 403),
        ("127.0.0.1", "192.168.1.5:8400", 403),
        ("127.0.0.1", "user@localhost", 403),
        ("127.0.0.1", "localhost:8400/x", 403),
        ("127.0.0.1", "[::1", 403),
        ("127.0.0.1", "", 403),
        ("0.0.0.0", "192.168.1.5:8400", 200),
        ("0.0.0.0", "[fe80::1]:8400", 200),
        ("0.0.0.0", "evil.example", 403),
        ("box.local", "box.local:8400", 200),
        ("box.local", "evil.example", 403),
    ],
)
def test_only_its_own_names_are_answered(made, bound, host, status):
    page = asked(made, host=bound)
    assert page.get("/health", Host=host).status_code == status
    assert page.get("/", Host=host).status_code == status
    assert page.post("/api/compare", headers={"Host": host}, a=RED, b=RED).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "HTTP://LOCALHOST", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Host": "127.0.0.1:8400", "Sec-Fetch-Site": "same-origin"}, 200),  # as docs/serving.md has a proxy send it
        ({"Host": "127.0.0.1:8400", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_pages_of_other_origins_cannot_ask(made, headers, status):
    answer = asked(made).post("/api/compare", headers=headers, a=RED, b=RED)
    assert answer.status_code == status
    assert "Access-Control-Allow-Origin" not in answer.headers
    wanted = 403 if status == 403 else 404  # there is no gallery
    assert asked(made).get("/api/gallery/0", **headers).status_code == wanted


@pytest.mark.parametrize("path", ["/", "/health", "/static/page.js", "/nothing", "/api/gallery/1"])
def test_every_answer_tells_browsers_to_be_strict(made, path):
    headers = asked(made).get(path).headers
    rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'" and "unsafe" not in str(rules)
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and headers["Cache-Control"] == "no-store"


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.5.5.5", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "box", "")))


# ---- how often


def test_an_address_has_a_burst_and_then_a_rate():
    now = [0.0]
    limit = RateLimit(2.0, 3.0, lambda: now[0])
    for _ in range(3):
        limit.take("a")
    with pytest.raises(RequestError) as found:
        limit.take("a")
    assert found.value.status == 429 and found.value.retry == 1
    limit.take("b")
    now[0] = 0.49
    with pytest.raises(RequestError):
        limit.take("a")
    now[0] = 0.51
    limit.take("a")
    now[0] = 1000.0
    for _ in range(3):
        limit.take("a")
    with pytest.raises(RequestError):
        limit.take("a")


def test_addresses_are_forgotten():
    limit = RateLimit(1.0, 1.0, lambda: 0.0)
    for i in range(limits.ADDRESSES + 10):
        limit.take(str(i))
    limit.take("0")
    assert len(limit._left) == limits.ADDRESSES


def test_too_many_requests_are_told_when_to_come_again(made):
    page = asked(made)
    answers = [page.post("/api/compare", a=RED) for _ in range(int(limits.JOB_BURST) + 15)]
    late = answers[-1]
    assert answers[0].status_code == 400 and late.status_code == 429 and int(late.headers["Retry-After"]) >= 1
    assert page.get("/health").status_code == 200


# ---- at a time


class Slow(Halves):
    """Waits until it is let go, and counts how many are inside."""

    def __init__(self) -> None:
        self.go, self.begun, self.inside, self.most = threading.Event(), threading.Semaphore(0), 0, 0
        self.go.set()

    def __call__(self, images):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.begun.release()
        assert self.go.wait(30)
        self.inside -= 1
        return super().__call__(images)


def test_jobs_wait_in_a_row_and_more_are_sent_away():
    predictor = Slow()
    made = service(predictor=predictor)
    page = asked(made)
    predictor.begun.acquire()
    predictor.go.clear()
    with ThreadPoolExecutor(limits.JOBS) as pool:
        try:
            waiting = [pool.submit(page.post, "/api/compare", a=RED, b=RED) for _ in range(limits.JOBS)]
            assert predictor.begun.acquire(timeout=30)
            while made._jobs._value:
                threading.Event().wait(0.01)
            late = page.post("/api/compare", a=RED, b=RED)
            assert late.status_code == 503 and late.headers["Retry-After"] == "1" and "busy" in late.json["error"]
            assert page.get("/health").status_code == 200
        finally:
            predictor.go.set()
        assert [answer.result().status_code for answer in waiting] == [200] * limits.JOBS
    assert predictor.most == 1
    assert page.post("/api/compare", a=RED, b=RED).status_code == 200
    made.close()
