"""Every option of the four commands: one frozen dataclass a command -> its command line, and back from a saved config.

This package imports neither Paddle nor NumPy, so that --help and a refused option answer at once.
"""

from metric_learning.config.base import Options as Options
from metric_learning.config.base import options as options
from metric_learning.config.elem import ElemOptions as ElemOptions
from metric_learning.config.pair import PairOptions as PairOptions
from metric_learning.config.parsing import COMMANDS as COMMANDS
from metric_learning.config.parsing import check_saved as check_saved
from metric_learning.config.parsing import from_dict as from_dict
from metric_learning.config.parsing import parse as parse
from metric_learning.config.parsing import resumed as resumed
from metric_learning.config.recipes import CLASSIFY as CLASSIFY
from metric_learning.config.training import TrainOptions as TrainOptions
from metric_learning.config.using import EvalOptions as EvalOptions
from metric_learning.config.using import InferOptions as InferOptions
from metric_learning.config.using import UseOptions as UseOptions
from metric_learning.config.values import fars_of as fars_of
from metric_learning.config.values import numbers_of as numbers_of
from metric_learning.config.values import shape_of as shape_of
from metric_learning.config.values import steps_of as steps_of
from metric_learning.config.values import vote_weights_of as vote_weights_of
