"""infer: embeddings of pictures, the similarity of two, the nearest of many."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.compare import embed_to_file
from metric_learning.config import InferOptions
from metric_learning.data.loader import BadPictures
from metric_learning.embedder import Embedder, saved_calibration, saved_group_means
from metric_learning.engine import Predictor
from metric_learning.extract import Reader
from metric_learning.inference import made_by
from metric_learning.runs import Run
from metric_learning.stages import scoring, searching, serving, setup
from metric_learning.stages.attributes import infer_classes
from metric_learning.stages.exporting import export_weights
from metric_learning.stages.inputs import pictures_of_input
from metric_learning.stages.measuring import choose
from metric_learning.stages.voting import classifies


def infer(config: InferOptions) -> None:
    """--pair and --pairs compare, --query searches, --gallery keeps; otherwise pictures are embedded or classified."""
    setup.begin(config)
    if config.export:
        export_weights(config)
        return
    if config.remove:
        searching.remove(config)
        return
    if config.serve:
        serving.check(config)
    if classifies(config):
        infer_classes(config)
        return
    file, run = setup.find_weights(config)
    if config.probabilities:
        raise UserError(f"--probabilities is about classes, and {file} knows none. Leave it out, or name a classifier.")
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
    made = made_by(file, embedder, reader)
    if config.serve:
        serving.serve(config, made, predictor, reader, _judge(config, file, reader), output)
    elif config.query:
        searching.query(config, made, predictor, reader, _judge(config, file, reader), output)
    elif config.gallery:
        searching.extend(config, _pictures(config, run), made, predictor, reader)
    else:
        setup.check_writable(output.parent, "--output")
        _embed(config, made, embedder, predictor, reader, run, output)


def _judge(config: InferOptions, file: Path, reader: Reader) -> scoring.Judge:
    """What the weights' file says of their cosines."""
    means = saved_group_means(file) if config.group_means else None
    return scoring.judge(config, saved_calibration(file), reader, means)


def _embed(
    config: InferOptions,
    made: dict[str, Any],
    embedder: Embedder,
    predictor: Predictor,
    reader: Reader,
    run: Run | None,
    output: Path,
) -> None:
    paths = _pictures(config, run)
    bad = BadPictures(len(paths), config.max_bad_pictures)
    count, left_out = embed_to_file(predictor, paths, reader, bad, output, made)
    if not dist.is_first():
        return
    for line in bad.lines():
        print(f"Left out, can't be read: {line}")
    print(f"{count:,} embeddings of {embedder.size} numbers each ({left_out} pictures left out), {predictor.way}")
    print(f"Written: {output} (embeddings, paths, model)")
    same = searching.typed_weights(config)
    a, b = shlex.quote(paths[0]), shlex.quote(paths[-1])
    print(f"Next: python infer.py{same} --pair {a} {b}")
    print(f"      python infer.py{same} --query {a} --output={shlex.quote(str(output))}")


def _pictures(config: InferOptions, run: Run | None) -> Sequence[str]:
    """The pictures of --input: a folder, a list, one picture; else the test's, or all where there is no test."""
    if config.input is None:
        config = setup.with_data_of(config, run, print)
        own = run is not None and setup.same_data(config, run)
        return choose(None, setup.load_data(config, print, set_aside=own))[0].paths
    return pictures_of_input(config.input)
