"""Stage two: fine-tune an embedding with a loss over pairs of pictures.

python train_pair.py --help lists the options.
"""

import sys

from metric_learning.cli import main
from metric_learning.config import PairOptions

if __name__ == "__main__":
    sys.exit(main(PairOptions))
