"""Stage one: learn an embedding with a loss over class centres.

python train_elem.py --help lists the options.
"""

import sys

from metric_learning.cli import main
from metric_learning.config import ElemOptions

if __name__ == "__main__":
    sys.exit(main(ElemOptions))
