"""infer: embeddings of pictures, the similarity of two, the nearest of many."""

import os
from pathlib import Path

from metric_learning import runtime
from metric_learning.checkpoint import Run
from metric_learning.checks import UserError
from metric_learning.compare import compare, embed_to_file, read_embeddings, search, similarity
from metric_learning.config import EvalOptions, InferOptions
from metric_learning.data.loader import BadPictures
from metric_learning.data.walk import pictures_below
from metric_learning.embedder import Embedder
from metric_learning.engine import Predictor
from metric_learning.extract import Reader
from metric_learning.stages import setup
from metric_learning.stages.measuring import choose


def infer(config: InferOptions) -> None:
    """--pair compares two pictures, --query searches; otherwise pictures are embedded into --output."""
    file, run = setup.find_weights(config)
    runtime.select_device(config.use_gpu)
    embedder = setup.load_embedder(file, config, print)
    picture = embedder.spec.picture
    predictor = Predictor(embedder, picture.shape, config.precision)
    reader = Reader(picture, config.batch_size, config.num_workers, config.flip_test)
    output = Path(config.output) if config.output else (run.folder if run else Path()) / "embeddings.npz"
    if output.suffix != ".npz":
        output = output.with_name(output.name + ".npz")
    if config.pair:
        _pair(config.pair, predictor, reader)
    elif config.query:
        _query(config, config.query, predictor, reader, output)
    else:
        _embed(config, embedder, predictor, reader, file, run, output)


def _pair(pair: list[str], predictor: Predictor, reader: Reader) -> None:
    cosine = compare(predictor, pair[0], pair[1], reader)
    print(f"similarity {similarity(cosine):.4f} (0..1, uncalibrated: (1 + cosine) / 2; cosine {cosine:.4f})")


def _query(config: InferOptions, query: str, predictor: Predictor, reader: Reader, output: Path) -> None:
    embeddings, paths, _ = read_embeddings(output)
    cosines, rows = search(predictor, query, embeddings, reader, config.top_k)
    for place, (cosine, row) in enumerate(zip(cosines, rows, strict=True), start=1):
        print(f"{place:3d}  similarity {similarity(float(cosine)):.4f}  {paths[row]}")


def _embed(
    config: InferOptions,
    embedder: Embedder,
    predictor: Predictor,
    reader: Reader,
    file: Path,
    run: Run | None,
    output: Path,
) -> None:
    paths = _pictures(config, run)
    bad = BadPictures(len(paths), config.max_bad_pictures)
    stat = file.stat()
    model = {"weights": str(file), "size": stat.st_size, "time": stat.st_mtime_ns, **embedder.spec.to_dict()}
    count, left_out = embed_to_file(predictor, paths, reader, bad, output, model)
    for line in bad.lines():
        print(f"Left out, can't be read: {line}")
    print(f"{count:,} embeddings of {embedder.size} numbers each ({left_out} pictures left out), {predictor.way}")
    print(f"Written: {output} (embeddings, paths, model)")
    print(
        f"Next: python infer.py --pair {paths[0]} {paths[-1]}  |  python infer.py --query {paths[0]} --output={output}"
    )


def _pictures(config: InferOptions, run: Run | None) -> list[str]:
    """The pictures of --input: a folder, a list, one picture; without it the test pictures of the data."""
    if config.input is None:
        config = setup.with_data_of(config, run, print)
        return choose(EvalOptions(), setup.load_data(config, print), own=True)[0].paths
    place = Path(config.input)
    if place.is_dir():
        return [str(place.joinpath(*names)) for names in pictures_below(place)]
    if not place.is_file():
        raise UserError(f"--input={place}: no such file or folder.")
    if place.suffix.lower() not in (".txt", ".lst", ".list", ".csv"):
        return [str(place)]
    lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines()]
    listed = [line if os.path.isabs(line) else str(place.parent / line) for line in lines if line]
    if not listed:
        raise UserError(f"--input={place}: the list is empty; it takes one path a line.")
    return listed
