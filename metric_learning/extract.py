"""Pictures of files -> embeddings, with a progress bar; what evaluation and comparison share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from metric_learning import dist
from metric_learning.checks import UserError
from metric_learning.data.loader import BadPictures, test_batches
from metric_learning.data.pictures import Source
from metric_learning.data.transforms import PictureSpec
from metric_learning.engine import Predictor


@dataclass(frozen=True)
class Reader:
    """How pictures reach the network: what it takes, how many at a time, by how many threads, mirrored too or not."""

    spec: PictureSpec
    batch_size: int = 50
    workers: int = 2
    flip_test: bool = False
    quiet: bool = False


def embed(
    predictor: Predictor, paths: Sequence[Source], reader: Reader, bad: BadPictures, alone: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """paths (N) -> (indices of those that could be read (M,), embeddings (M, D) float32, not normalised).

    Several processes embed a part each, and every one has all embeddings in the end; alone: each does all by itself.
    A picture may also be given as its encoded bytes, with a name.
    With flip_test the embedding is that of the picture plus that of its mirror image.
    """
    kept, rows = [np.empty(0, np.int64)], []
    start, stop = (0, len(paths)) if alone else dist.shard(len(paths))
    batches = test_batches(paths[start:stop], reader.spec, reader.batch_size, reader.workers, bad)
    hidden = True if reader.quiet or not dist.is_first() else None
    with tqdm(total=stop - start, unit="picture", desc="Embedding", disable=hidden, leave=False) as bar:
        for indices, images in batches:
            embeddings = predictor(images)
            if reader.flip_test:
                embeddings = embeddings + predictor(np.ascontiguousarray(images[..., ::-1]))
            kept.append(indices + start)
            rows.append(embeddings)
            bar.update(len(indices))
    mine = np.concatenate(kept), np.concatenate(rows) if rows else None, bad.reasons()
    parts = [mine] if alone else dist.all_gather_object(mine)
    for _, _, reasons in parts:
        bad.take(reasons)
    found = [part for _, part, _ in parts if part is not None]
    if not found:
        raise UserError("None of the pictures can be read, so there is nothing to measure. Check --data_dir.")
    return np.concatenate([indices for indices, _, _ in parts]), np.concatenate(found)
