"""Claim: the torch twin starts from the very weights that our run of that seed starts from.

python benchmarks/initial_weights.py --data <data> --name orl --seed 0 --output start.npz

Builds the network and the class centres as training.py does, and writes them with a batch of pictures and the
embeddings that Paddle makes of it, for the twin to check itself against. Called by pml_twin.py.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from plan import ELEM, MACHINE, MARGINS, TWINS, data_flags, loss_flags

from metric_learning import runtime
from metric_learning.config import ElemOptions, parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--name", "--output"):
        parser.add_argument(name, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    runtime.prepare(threads=1)

    import numpy as np
    import paddle

    from metric_learning.embedder import Embedder
    from metric_learning.stages import setup
    from metric_learning.stages.parts import parts

    paddle.set_device("cpu")
    arrays = {}
    for loss in TWINS if options.name in MARGINS else ELEM:
        flags = [*data_flags(options.name, options.data), *loss_flags(options.name, loss, options.seed), *MACHINE]
        config = parse(ElemOptions, flags)
        splits = setup.load_data(config, lambda line: None)
        paddle.seed(config.seed)
        embedder = Embedder(setup.spec_of(config))
        made = parts(config, splits.train, embedder.size)
        arrays |= {f"{loss}.{name}": value.numpy() for name, value in made.loss.state_dict().items()}
    arrays |= {f"embedder.{name}": value for name, value in embedder.arrays().items()}
    images = np.random.default_rng(0).standard_normal((8, *embedder.spec.picture.shape), dtype=np.float32)
    embedder.eval()
    arrays |= {"images": images, "embeddings": embedder(paddle.to_tensor(images)).numpy()}
    np.savez(options.output, **arrays)


if __name__ == "__main__":
    main()
