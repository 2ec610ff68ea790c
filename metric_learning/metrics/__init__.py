"""Metrics: NumPy in, numbers out; usable on embeddings from anywhere."""

from metric_learning.metrics.groups import GroupedResult, Summary, grouped_result, per_group
from metric_learning.metrics.pairs import FoldAccuracy, all_pairs, scores_of_pairs, ten_fold_accuracy
from metric_learning.metrics.retrieval import RetrievalMetrics, nearest, retrieval_metrics
from metric_learning.metrics.scores import ScoreStream
from metric_learning.metrics.verification import (
    FARS,
    OperatingPoint,
    VerificationResult,
    stream_result,
    verification_metrics,
)

__all__ = [
    "FARS",
    "FoldAccuracy",
    "GroupedResult",
    "OperatingPoint",
    "RetrievalMetrics",
    "ScoreStream",
    "Summary",
    "VerificationResult",
    "all_pairs",
    "grouped_result",
    "nearest",
    "per_group",
    "retrieval_metrics",
    "scores_of_pairs",
    "stream_result",
    "ten_fold_accuracy",
    "verification_metrics",
]
