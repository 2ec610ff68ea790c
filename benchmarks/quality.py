"""Claim: the length of an embedding that MagFace trained falls as the picture is blurred.

python benchmarks/quality.py --weights output/elem-magface-... [--split test] [--sigmas 0,1,2,4] [--pictures 500]

Blurs test pictures of the run's data by Gaussians of those sigmas (in pixels of a picture 112 wide), embeds them, and
prints the mean length at each, the share of pictures whose length is below that of the sharp one, and the share whose
lengths are in order. With the weights of another loss it shows what comes without MagFace.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metric_learning import runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="a run, or its best.safetensors")
    parser.add_argument("--data_dir", help="pictures, where the weights are of no run or for others")
    parser.add_argument("--split", default="test")
    parser.add_argument("--sigmas", default="0,1,2,4")
    parser.add_argument("--pictures", type=int, default=500)
    options = parser.parse_args()
    runtime.prepare(onednn=True)
    sigmas = [float(sigma) for sigma in options.sigmas.split(",")]
    lengths = measured(options, sigmas)
    print(f"{lengths.shape[1]} pictures\n\n| sigma | mean length | below the first, % |\n|---|---|---|")
    for sigma, row in zip(sigmas, lengths, strict=True):
        print(f"| {sigma:g} | {row.mean():.2f} | {100 * (row < lengths[0]).mean():.1f} |")
    print(f"\nIn order from the first to the last: {100 * (np.diff(lengths, axis=0) < 0).all(axis=0).mean():.1f} %")


def measured(options: argparse.Namespace, sigmas: list[float]) -> np.ndarray:
    """Lengths (sigmas, pictures) of the embeddings."""
    from metric_learning.config import EvalOptions, parse
    from metric_learning.data.pictures import read_picture
    from metric_learning.data.transforms import TestTransform, to_batch
    from metric_learning.engine import Predictor
    from metric_learning.stages import measuring, setup

    data = [f"--data_dir={options.data_dir}"] if options.data_dir else []
    config = parse(EvalOptions, [f"--pretrained_model={options.weights}", f"--split={options.split}", *data])
    file, run = setup.find_weights(config)
    embedder = setup.load_embedder(file, config, print)
    pictures, _ = measuring.choose(options.split, setup.load_data(setup.with_data_of(config, run, print), print))
    spec = embedder.spec.picture
    transform, predictor = TestTransform(spec), Predictor(embedder, spec.shape, "float32")
    chosen = np.random.default_rng(0).permutation(len(pictures))[: options.pictures]
    found = []
    for index in chosen:
        sharp = read_picture(pictures.paths[index])
        made = [transform(blurred(sharp, sigma)) for sigma in sigmas]
        found.append(np.linalg.norm(predictor(to_batch(made, spec)), axis=1))
    return np.stack(found, axis=1)


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    pixels = sigma * picture.shape[1] / 112
    return cv2.GaussianBlur(picture, (0, 0), pixels) if pixels else picture


if __name__ == "__main__":
    main()
