"""Claim: training is worth it: what an untrained network and the bare pixels reach on the same test classes.

python benchmarks/baselines.py --data <data> --out bench_out [--only orl] [--seeds 0,1,2]
python benchmarks/baselines.py --demo --out bench_out

Untrained: the network of the recipe with its random weights (one figure a seed). Raw pixels: the cosine between the
pictures as the network sees them, resized and normalised. --demo: the embedded demo faces, drawn in ./demo_faces, with
train_elem.py's own defaults for them. One JSON in <out>/baselines/ for each data set.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from plan import MACHINE, RECIPES, chosen, data_flags, write

from metric_learning import runtime
from metric_learning.config import ElemOptions, parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds grocery_sop, orl, omniglot28, lfw_races")
    parser.add_argument("--out", required=True, help="folder for results")
    parser.add_argument("--only", help="data sets, by comma")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--demo", action="store_true")
    options = parser.parse_args()
    if not options.demo and not options.data:
        parser.error("--data or --demo is needed")
    runtime.prepare(threads=1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for name in ["demo_faces"] if options.demo else chosen(options.only, tuple(RECIPES)):
        config = parse(ElemOptions, MACHINE if options.demo else [*data_flags(name, options.data), *MACHINE])
        if options.demo:
            config = config.with_defaults(**config.demo)
        found = baselines(config, seeds)
        write(Path(options.out) / "baselines" / f"{name}.json", found)
        said = ", ".join(f"{100 * figures['recall@1']:.2f}" for figures in found["untrained"])
        print(
            f"{name}: Recall@1 in %: raw pixels {100 * found['pixels']['recall@1']:.2f}, untrained {said}", flush=True
        )


def baselines(config: ElemOptions, seeds: list[int]) -> dict[str, Any]:
    """{"pixels": figures, "untrained": figures for each seed} on the test classes of `config`."""
    import numpy as np
    import paddle

    from metric_learning.data.loader import BadPictures, test_batches
    from metric_learning.embedder import Embedder
    from metric_learning.engine import Predictor
    from metric_learning.metrics import retrieval_metrics
    from metric_learning.stages import setup

    paddle.set_device("cpu")
    test = setup.load_data(config, print).test
    spec = setup.spec_of(config)
    bad = BadPictures(len(test))
    batches = list(test_batches(test.paths, spec.picture, config.test_batch_size, config.num_workers, bad))
    labels = test.labels[np.concatenate([kept for kept, _ in batches])]
    pixels = np.concatenate([images.reshape(len(images), -1) for _, images in batches])
    untrained = []
    for seed in seeds:
        paddle.seed(seed)
        predictor = Predictor(Embedder(spec), spec.picture.shape)
        untrained.append(retrieval_metrics(np.concatenate([predictor(x) for _, x in batches]), labels))
    return {"pixels": retrieval_metrics(pixels, labels), "untrained": untrained, "seeds": seeds, "test": len(labels)}


if __name__ == "__main__":
    main()
