"""Use an embedding: embed pictures, compare two of them, find the nearest.

python infer.py --help lists the options.
"""

import sys

from metric_learning.cli import main
from metric_learning.config import InferOptions

if __name__ == "__main__":
    sys.exit(main(InferOptions))
