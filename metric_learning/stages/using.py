"""infer: embeddings of pictures, the similarity of two, the nearest of many."""

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from metric_learning import dist
from metric_learning.checkpoint import Run
from metric_learning.checks import UserError
from metric_learning.compare import embed_to_file, read_embeddings, search
from metric_learning.config import InferOptions
from metric_learning.data.loader import BadPictures
from metric_learning.embedder import Embedder, saved_calibration, saved_group_means
from metric_learning.engine import Predictor
from metric_learning.extract import Reader
from metric_learning.stages import scoring, setup
from metric_learning.stages.attributes import infer_classes
from metric_learning.stages.inputs import pictures_of_input
from metric_learning.stages.measuring import all_as_test, choose
from metric_learning.stages.voting import classifies


def infer(config: InferOptions) -> None:
    """--pair and --pairs compare pictures, --query searches; otherwise pictures are embedded or classified."""
    setup.begin(config)
    if classifies(config):
        infer_classes(config)
        return
    file, run = setup.find_weights(config)
    embedder = setup.load_embedder(file, config, print)
    picture = embedder.spec.picture
    predictor = Predictor(embedder, picture.shape, config.precision)
    reader = Reader(picture, config.batch_size, config.num_workers, config.flip_test)
    if config.pair or config.pairs:
        judged = _judge(config, file, reader)
        if config.pair:
            scoring.score_pair(config, config.pair, judged, predictor, reader)
        else:
            scoring.score_list(config, str(config.pairs), judged, predictor, reader, run)
        return
    output = setup.output_file(config.output, run, "embeddings.npz")
    if config.query:
        _query(config, config.query, predictor, reader, file, output)
    else:
        setup.check_writable(output.parent, "--output")
        _embed(config, embedder, predictor, reader, file, run, output)


def _judge(config: InferOptions, file: Path, reader: Reader) -> scoring.Judge:
    """What the weights' file says of their cosines."""
    means = saved_group_means(file) if config.group_means else None
    return scoring.judge(config, saved_calibration(file), reader, means)


def _digest(file: Path) -> str:
    """What tells weights from others, wherever they lie."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]


def _query(config: InferOptions, query: str, predictor: Predictor, reader: Reader, file: Path, output: Path) -> None:
    scoring.check_picture(query)
    embeddings, paths, model = read_embeddings(output)
    if model.get("digest") != _digest(file):
        raise UserError(
            f"The embeddings {output} were made with other weights ({model.get('weights')}), not {file}. "
            "Name those by --pretrained_model, or embed again."
        )
    judged = _judge(config, file, reader)
    cosines, rows = search(predictor, query, embeddings, reader, config.top_k, judged.means)
    if judged.calibration is None:
        print(f"Similarity, {scoring.UNCALIBRATED}.")
    values = judged.similarity(cosines, None)
    for place, (value, cosine, row) in enumerate(zip(values, cosines, rows, strict=True), start=1):
        print(f"{place:3d}  similarity {value:.4f}  cosine {cosine:.4f}  {paths[row]}")


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
    model = {"weights": str(file), "digest": _digest(file), **embedder.spec.to_dict()}
    count, left_out = embed_to_file(predictor, paths, reader, bad, output, model)
    if not dist.is_first():
        return
    for line in bad.lines():
        print(f"Left out, can't be read: {line}")
    print(f"{count:,} embeddings of {embedder.size} numbers each ({left_out} pictures left out), {predictor.way}")
    print(f"Written: {output} (embeddings, paths, model)")
    typed = ("pretrained_model", "checkpoint", "model_save_dir")
    same = "".join(f" --{name}={shlex.quote(getattr(config, name))}" for name in typed if name in config.typed)
    a, b = shlex.quote(paths[0]), shlex.quote(paths[-1])
    print(f"Next: python infer.py{same} --pair {a} {b}")
    print(f"      python infer.py{same} --query {a} --output={shlex.quote(str(output))}")


def _pictures(config: InferOptions, run: Run | None) -> Sequence[str]:
    """The pictures of --input: a folder, a list, one picture; else the test's of the run's data, all of other data."""
    if config.input is None:
        config = setup.with_data_of(config, run, print)
        own = run is not None and setup.same_data(config, run)
        return choose(None, setup.load_data(all_as_test(config, own), print))[0].paths
    return pictures_of_input(config.input)
