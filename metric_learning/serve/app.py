"""The page and the API as a Flask application: routes, limits, and errors in one line."""

from typing import Any

from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from metric_learning import __version__
from metric_learning.data.pictures import FORMATS
from metric_learning.serve import limits
from metric_learning.serve.guards import Hosts, check_origin, is_loopback, with_headers
from metric_learning.serve.limits import MAX_TOP_K, MB, RateLimit, RequestError
from metric_learning.serve.service import Service
from metric_learning.serve.uploads import InMemory, pictures_of

LIMITS = {
    "bytes": limits.MAX_FILE,
    "megabytes": limits.MAX_FILE // MB,
    "megapixels": limits.MAX_PIXELS // 1_000_000,
    "top_k": MAX_TOP_K,
    "formats": FORMATS,
}


def make_app(service: Service, model: dict[str, Any], host: str = "127.0.0.1", top_k: int = 5) -> Flask:
    """The application. model: what the page and /health say of the network; top_k: of a search that names none."""
    app = Flask(__name__)
    app.request_class = InMemory
    app.config.update(MAX_CONTENT_LENGTH=limits.MAX_BODY, PROPAGATE_EXCEPTIONS=False)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    _guard(app, host)
    _answer_errors(app)
    about = {"version": __version__, "model": model, "gallery": service.count, **service.meaning()}

    @app.get("/")
    def page() -> str:
        return render_template("page.html", about=about, limits=LIMITS, top_k=top_k, local=is_loopback(host))

    @app.get("/health")
    def health() -> Response:
        return jsonify({"status": "ok", **about})

    @app.post("/api/compare")
    def compare() -> Response:
        _take_arguments()
        a, b = pictures_of(request, ("a", "b"))
        return jsonify(service.compare(a, b))

    @app.post("/api/search")
    def search() -> Response:
        wanted = _top_k(_take_arguments("top_k").get("top_k", str(top_k)))
        (picture,) = pictures_of(request, ("picture",))
        return jsonify(service.search(picture, wanted))

    @app.get("/api/gallery/<int:row>")
    def picture(row: int) -> Response:
        return Response(service.picture(row), mimetype="image/jpeg")

    return app


def _take_arguments(*known: str) -> dict[str, str]:
    """The request's ?name=value; a RequestError for others than `known`, and for one that is there twice."""
    for name, values in request.args.lists():
        if name not in known:
            raise RequestError(
                400, f"There is no argument {name[:40]!r} here{f'; {known[0]} is one' if known else ''}."
            )
        if len(values) > 1:
            raise RequestError(400, f"The argument {name} was sent {len(values)} times.")
    return request.args.to_dict()


def _top_k(typed: str) -> int:
    if not (typed.isascii() and typed.isdigit() and len(typed) < 10 and 1 <= int(typed) <= MAX_TOP_K):
        raise RequestError(400, f"top_k must be a whole number from 1 to {MAX_TOP_K}; got {typed[:40]!r}.")
    return int(typed)


def _guard(app: Flask, host: str) -> None:
    hosts = Hosts(host)
    jobs = RateLimit(limits.JOB_RATE, limits.JOB_BURST)
    reads = RateLimit(limits.READ_RATE, limits.READ_BURST)

    @app.before_request
    def check() -> None:
        hosts.check(request.headers.get("Host", ""))
        check_origin(request)
        (jobs if request.method == "POST" else reads).take(request.remote_addr or "")

    app.after_request(with_headers)


def _answer_errors(app: Flask) -> None:
    """JSON for the API and for programs, a page for who looks at pages; never a traceback."""

    @app.errorhandler(RequestError)
    def refused(refusal: RequestError) -> Response:
        return _said(refusal)

    @app.errorhandler(HTTPException)
    def unusual(error: HTTPException) -> Response:
        if isinstance(error, RequestEntityTooLarge):
            return _said(
                RequestError(413, f"The request is too large: {limits.MAX_FILE // MB} MB a picture are the limit.")
            )
        said = "There is nothing at this address." if error.code == 404 else error.description or error.name
        response = _said(RequestError(error.code or 500, said))
        if valid := getattr(error, "valid_methods", None):
            response.headers["Allow"] = ", ".join(valid)
        return response

    @app.errorhandler(MemoryError)
    def full(error: MemoryError) -> Response:
        return _said(RequestError(503, "There is not enough memory for this. Try smaller pictures.", retry=5))

    @app.errorhandler(Exception)
    def broken(error: Exception) -> Response:
        app.logger.exception("A request failed")
        return _said(RequestError(500, "Something is broken here; the server's terminal says what."))


def _said(refusal: RequestError) -> Response:
    wants_page = request.path != "/health" and not request.path.startswith("/api/")
    if wants_page and request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        response = Response(render_template("error.html", refusal=refusal), mimetype="text/html")
    else:
        response = jsonify({"error": refusal.message, "field": refusal.field})
    response.status_code = refusal.status
    if refusal.retry is not None:
        response.headers["Retry-After"] = str(refusal.retry)
    return response
