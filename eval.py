"""Measure an embedding: Recall@k, MAP@R, and verification TAR@FAR group by group.

python eval.py --help lists the options.
"""

import sys

from metric_learning.cli import main
from metric_learning.config import EvalOptions

if __name__ == "__main__":
    sys.exit(main(EvalOptions))
