"""What the API of infer --serve answers: numbers, pictures, and what it refuses."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image
from serve_cases import BLUE, CALIBRATION, READER, RED, Halves, asked, encoded, picture, service

from metric_learning.metrics.group_means import GroupMeans
from metric_learning.serve import limits
from metric_learning.serve.service import Service, names_of
from metric_learning.stages.scoring import Judge


@pytest.fixture
def page(tmp_path):
    made = service(tmp_path / "gallery")
    yield asked(made)
    made.close()


def refused(answer, status: int, field=None) -> str:
    """The one line that it was refused by."""
    assert answer.status_code == status, answer.text
    assert answer.json["field"] == field and set(answer.json) == {"error", "field"}
    assert "Traceback" not in answer.text and "\n" not in answer.json["error"]
    return answer.json["error"]


# ---- numbers


def cosine(a, b) -> float:
    rows = [np.array(colour, np.float32) / 127.5 - 1 + 0.01 for colour in (a, b)]
    a, b = (np.concatenate([row, row]) for row in rows)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_two_pictures_are_compared_as_they_are(page):
    expected = cosine((250, 10, 10), (10, 10, 250))
    found = page.post("/api/compare", a=RED, b=BLUE).json
    assert found["cosine"] == pytest.approx(expected, abs=1e-5) and expected < 0
    assert found["similarity"] == pytest.approx((1 + expected) / 2, abs=1e-5)
    assert found["same"] is None and found["threshold"] is None and found["calibrated"] is False
    assert "no threshold" in found["threshold_from"]
    assert page.post("/api/compare", a=RED, b=RED).json["cosine"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("judge", "group", "threshold", "middle"),
    [
        (Judge(CALIBRATION), None, 0.25, 0.5),
        (Judge(CALIBRATION), "Asian", 0.5, 0.5),
        (Judge(CALIBRATION, 0.75), None, 0.75, 1 / (1 + np.exp(-8 * 0.5))),
        (Judge(None, 0.75), None, 0.75, 0.875),
    ],
)
def test_the_verdict_is_by_the_threshold_that_is_told(judge, group, threshold, middle):
    made = service(judge=judge, group=group)
    page = asked(made)
    for other in ((250, 10, 10), (200, 60, 20), (160, 100, 60), (10, 10, 250)):
        found = page.post("/api/compare", a=RED, b=picture(other)).json
        assert found["threshold"] == threshold and found["threshold_similarity"] == pytest.approx(middle, abs=1e-12)
        assert found["same"] == (found["cosine"] >= threshold) == (found["similarity"] >= middle)
        assert found["far"] == (0.001 if judge.calibration and judge.typed is None else None)
        assert found["group"] == group and found["calibrated"] is (judge.calibration is not None)
    made.close()


def test_the_threshold_itself_is_the_same():
    made = service()
    cosine = asked(made).post("/api/compare", a=RED, b=BLUE).json["cosine"]
    made.close()
    for threshold, same in ((cosine, True), (float(np.nextafter(cosine, 1)), False)):
        made = service(judge=Judge(None, threshold))
        assert asked(made).post("/api/compare", a=RED, b=BLUE).json["same"] is same
        made.close()


def test_the_means_of_groups_are_taken_off():
    means = GroupMeans(("Asian", "Other"), np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32))
    found = {}
    for group in ("Asian", "Other", None):
        made = service(judge=Judge(CALIBRATION, means=means), group=group)
        told = asked(made).post("/api/compare", a=RED, b=BLUE).json
        found[group] = told["cosine"]
        assert told["threshold"] == (0.5 if group == "Asian" else 0.25)  # "Other" has no operating point of its own
        made.close()
        units = [np.array(c * 2, np.float32) / 127.5 - 1 + 0.01 for c in ((250, 10, 10), (10, 10, 250))]
        off = means.means[means.names.index(group)] if group else means.means.mean(axis=0)
        a, b = (unit / np.linalg.norm(unit) - off for unit in units)
        assert found[group] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    assert abs(found["Asian"] - found[None]) > 0.01


def test_a_search_is_the_gallery_s(page, tmp_path):
    shown = (tmp_path / "gallery" / "person3" / "a.png").read_bytes()
    found = page.post("/api/search?top_k=4", picture=shown).json
    assert found["count"] == 6 and found["results"][0]["row"] == 3
    assert found["results"][0]["name"] == "person3/a.png"
    assert found["results"][0]["cosine"] == pytest.approx(1, abs=1e-4)
    values = [result["similarity"] for result in found["results"]]
    assert len(values) == 4 and values == sorted(values, reverse=True)
    assert len(page.post("/api/search", picture=shown).json["results"]) == 5
    assert len(page.post("/api/search?top_k=100", picture=shown).json["results"]) == 6


def test_health_says_what_is_served(page):
    said = page.get("/health").json
    assert said["status"] == "ok" and said["model"]["name"] == "Halves"
    assert said["gallery"] == 6 and said["calibrated"] is False
    made = service()
    assert asked(made).get("/health").json["gallery"] is None
    made.close()


# ---- what is no picture


def bomb() -> bytes:
    """A PNG whose header, which is whole, says that it is huge."""
    data = bytearray(picture((0, 0, 0)))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"not a picture at all", 422, "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 422, "not a picture"),
        (encoded(".jpg")[:2000], 422, "Can't read"),
        (encoded(".png")[:2000], 422, "Can't read"),
        (encoded(".jpg")[:3], 422, "not a picture"),
        (bomb(), 413, "more than 50 million pixels"),
        (b"P6 50001 1000 255 ", 413, "more than 50 million pixels"),
        (b"\xff\xd8" + b"\xff" * 19_000_000, 422, "keep the server busy"),
        (RED + bytes(limits.MAX_FILE), 413, "larger than 20 MB"),
    ],
    ids=["empty", "text", "svg", "eps", "cut jpeg", "cut png", "three bytes", "bomb", "wide", "endless", "large"],
)
def test_a_bad_file_is_told_in_a_line(page, data, status, words):
    for field, path, files in (
        ("b", "/api/compare", {"a": RED, "b": data}),
        ("a", "/api/compare", {"a": data, "b": RED}),
        ("picture", "/api/search", {"picture": data}),
    ):
        assert words in refused(page.post(path, **files), status, field)


def test_fields_that_are_not_as_they_should_be(page):
    assert "b is missing" in refused(page.post("/api/compare", a=RED), 400, "b")
    assert "no field 'c'" in refused(page.post("/api/compare", a=RED, b=RED, c=RED), 400, "c")
    assert "not text" in refused(page.post("/api/compare", a="/etc/passwd", b=RED), 400, "a")
    assert "2 times" in refused(page.post("/api/compare", a=[RED, RED], b=RED), 400, "a")
    client = page.app.test_client()
    assert "multipart" in refused(client.post("/api/compare", json={"a": "x"}), 400)
    assert "multipart" in refused(client.post("/api/compare"), 400)
    nameless = b'--x\r\nContent-Disposition: form-data; filename="a"\r\n\r\na\r\n--x--\r\n'
    answer = client.post("/api/compare", data=nameless, content_type="multipart/form-data; boundary=x")
    assert "no field ''" in refused(answer, 400, "")
    broken = client.post("/api/compare", data=b"--x\r\nnonsense", content_type="multipart/form-data; boundary=x")
    assert broken.status_code == 400
    assert "missing" in refused(page.post("/api/search"), 400, "picture")
    assert "too large" in refused(page.post("/api/search", picture=bytes(limits.MAX_BODY)), 413)
    assert refused(page.post("/api/compare", a=RED, b="x" * 1_000_000), 413)


@pytest.mark.parametrize("typed", ["0", "101", "-1", "x", "", "1e1", "5.0", "²", "9" * 5000])
def test_top_k_out_of_its_range(page, typed):
    assert "1 to 100" in refused(page.post(f"/api/search?top_k={typed}", picture=RED), 400)


def test_arguments_that_are_not_known(page):
    assert "'topk'" in refused(page.post("/api/search?topk=3", picture=RED), 400)
    assert "2 times" in refused(page.post("/api/search?top_k=3&top_k=4", picture=RED), 400)
    assert "'group'" in refused(page.post("/api/compare?group=x", a=RED, b=RED), 400)


def test_paths_and_methods_that_are_not_there(page):
    assert refused(page.get("/api/nothing"), 404)
    answer = page.get("/api/compare")
    assert refused(answer, 405) and "POST" in answer.headers["Allow"]
    as_page = page.get("/nothing", Accept="text/html,*/*;q=0.8")
    assert as_page.status_code == 404 and as_page.mimetype == "text/html" and "<h1>404</h1>" in as_page.text


def test_without_a_gallery_there_is_nothing_to_search():
    made = service()
    page = asked(made)
    assert "no gallery" in refused(page.post("/api/search", picture=RED), 404)
    assert refused(page.get("/api/gallery/0"), 404)
    assert "No gallery yet" in page.get("/").text
    made.close()


def test_an_empty_gallery_is_one(tmp_path):
    folder = service(tmp_path)._gallery
    made = Service(Halves(), READER, Judge(None), None, folder.remove(folder.paths))
    page = asked(made)
    assert page.get("/health").json["gallery"] == 0 and "No gallery yet" not in page.get("/").text
    found = page.post("/api/search", picture=RED)
    assert found.status_code == 200 and found.json["count"] == 0 and found.json["results"] == []
    made.close()


# ---- pictures of the gallery


def test_a_picture_of_the_gallery_is_small_and_encoded_anew(tmp_path):
    made = service(tmp_path)
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    (tmp_path / "person1" / "a.png").write_bytes(picture((9, 200, 9), format="JPEG", size=(900, 3000), exif=exif))
    answer = asked(made).get("/api/gallery/1")
    assert answer.status_code == 200 and answer.mimetype == "image/jpeg" and b"taken at home" not in answer.data
    with Image.open(io.BytesIO(answer.data)) as shown:
        assert shown.size == (144, 480) and not shown.getexif()
        np.testing.assert_allclose(shown.getpixel((70, 200)), (9, 200, 9), atol=6)
    made.close()


@pytest.mark.parametrize("row", ["6", "-1", "x", "1.0", "9" * 30, "0/..", "../../etc/passwd", "%2e%2e%2fa.png", ""])
def test_rows_that_are_none(page, row):
    refused(page.get(f"/api/gallery/{row}"), 404)


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/..%5capp.py"]
)
def test_static_files_are_those_of_the_page(page, path):
    assert page.get(path, follow_redirects=True).status_code == 404


def test_what_is_no_picture_any_more_is_gone(page, tmp_path):
    file = tmp_path / "gallery" / "person2" / "a.png"
    assert page.get("/api/gallery/2").status_code == 200
    file.write_text("a secret")
    assert "secret" not in refused(page.get("/api/gallery/2"), 404)
    file.unlink()
    assert "gone" in refused(page.get("/api/gallery/2"), 404)
    file.mkdir()
    assert refused(page.get("/api/gallery/2"), 404)


def test_names_begin_below_the_folder_that_holds_all():
    assert names_of(["/some/place/a/1.png", "/some/place/b/2.png"]) == ["a/1.png", "b/2.png"]
    assert names_of(["faces/1.png"]) == ["1.png"] and names_of([]) == []
    assert names_of(["1.png", "a/2.png"]) == ["1.png", "a/2.png"]
    assert names_of(["/secret/place/a/1.png", "b/2.png"]) == ["a/1.png", "b/2.png"]
    assert names_of(["a/\udcff.png"]) == ["?.png"]


# ---- what breaks inside


def test_an_error_inside_is_told_without_its_inside(caplog):
    class Broken(Halves):
        def __call__(self, images):
            if images.min() < -0.5:
                raise RuntimeError("the inside")
            return super().__call__(images)

    made = service(predictor=Broken())
    said = refused(asked(made).post("/api/compare", a=RED, b=RED), 500)
    assert "inside" not in said and "the inside" in caplog.text
    made.close()


def test_an_embedding_that_is_not_finite_is_refused():
    class Infinite(Halves):
        def __call__(self, images):
            return super().__call__(images) * np.float32("nan" if images.min() < -0.5 else 1)

    made = service(predictor=Infinite())
    assert "not finite" in refused(asked(made).post("/api/compare", a=RED, b=RED), 422)
    made.close()


def test_the_page_holds_nothing_from_elsewhere(page):
    text = page.get("/").text
    assert "uncalibrated" in text and "Pictures stay on this machine" in text
    for never in ("http://", "https://", "style=", "onclick", "<style", "<script>"):
        assert never not in text
