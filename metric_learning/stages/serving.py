"""infer --serve: a local page to compare pictures and to search a gallery."""

from pathlib import Path
from typing import Any

from metric_learning import dist
from metric_learning.checks import UserError, check_range
from metric_learning.config import InferOptions
from metric_learning.engine import Predictor
from metric_learning.extract import Reader
from metric_learning.gallery import Gallery
from metric_learning.serve import check_installed
from metric_learning.serve.limits import MAX_TOP_K
from metric_learning.serve.service import Service
from metric_learning.stages import searching
from metric_learning.stages.scoring import Judge


def check(config: InferOptions) -> None:
    """Before anything is loaded: whether this can be served at all."""
    check_installed()
    check_range("--top_k with --serve", config.top_k, 1, MAX_TOP_K)
    if dist.size() > 1:
        raise UserError("--serve runs in one process. Start it without the launcher.")


def serve(
    config: InferOptions,
    made: dict[str, Any],
    predictor: Predictor,
    reader: Reader,
    judged: Judge,
    embeddings: Path,
) -> None:
    """Answer until Ctrl-C or SIGTERM. What is searched: --gallery, else the file of embeddings where it is there."""
    from metric_learning.serve.app import make_app
    from metric_learning.serve.guards import is_loopback
    from metric_learning.serve.server import serve as serve_app

    gallery = _gallery(config, made, embeddings)
    service = Service(predictor, reader, judged, config.group, gallery)
    if not is_loopback(config.host):
        print(
            f"WARNING: --host={config.host} lets everybody who reaches this machine use the page, and pictures travel "
            "unencrypted."
        )
    try:
        model = {"name": made["model"], "picture": list(reader.spec.shape), "computed_by": predictor.way}
        app = make_app(service, model, config.host, config.top_k)
        serve_app(app, config.host, config.port, lambda url: print(f"Page: {url} (Ctrl-C ends it)", flush=True))
    finally:
        service.close()
    print("Stopped.")


def _gallery(config: InferOptions, made: dict[str, Any], embeddings: Path) -> Gallery | None:
    """The one that was typed; else that of the embeddings, but none where they are not there or of other weights."""
    typed = config.gallery is not None or config.output is not None
    place = searching.place_of(config.gallery) if config.gallery is not None else embeddings
    if not typed and not place.is_file():
        print("No gallery, so the page compares only. Make one by infer.py --gallery=<folder> --input=<pictures>.")
        return None
    gallery = Gallery.read(place)
    try:
        gallery.check_model(made["digest"], made["weights"], made)
    except UserError as error:
        if typed:
            raise
        print(f"No gallery, so the page compares only. {error}")
        return None
    print(f"Gallery: {place} ({len(gallery):,} pictures)")
    return gallery
