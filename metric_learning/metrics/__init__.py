"""Metrics: NumPy in, numbers out; usable on embeddings from anywhere."""

from metric_learning.metrics.folds import BestAccuracy, FoldAccuracy, best_accuracy, ten_fold_accuracy
from metric_learning.metrics.groups import GroupedResult, Summary, grouped_result, per_group
from metric_learning.metrics.pairs import all_pairs, scores_of_pairs
from metric_learning.metrics.retrieval import RetrievalMetrics, nearest, retrieval_metrics
from metric_learning.metrics.stream import ScoreStream
from metric_learning.metrics.team import ALONE, Team
from metric_learning.metrics.templates import template_embeddings
from metric_learning.metrics.verification import (
    FARS,
    OperatingPoint,
    VerificationResult,
    stream_result,
    verification_metrics,
)

__all__ = [
    "ALONE",
    "FARS",
    "BestAccuracy",
    "FoldAccuracy",
    "GroupedResult",
    "OperatingPoint",
    "RetrievalMetrics",
    "ScoreStream",
    "Summary",
    "Team",
    "VerificationResult",
    "all_pairs",
    "best_accuracy",
    "grouped_result",
    "nearest",
    "per_group",
    "retrieval_metrics",
    "scores_of_pairs",
    "stream_result",
    "template_embeddings",
    "ten_fold_accuracy",
    "verification_metrics",
]
