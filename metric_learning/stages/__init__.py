"""The four commands, each a function of its options: build the parts, run, write the results down."""

from metric_learning.stages.measuring import eval
from metric_learning.stages.training import train_elem, train_pair
from metric_learning.stages.using import infer

__all__ = ["eval", "infer", "train_elem", "train_pair"]
