"""Angular distillation: the student's embeddings point where the teacher's do."""

from paddle import Tensor

from metric_learning.ops import l2_normalize


def angular_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """student, teacher (B, D) -> mean over B of || t/|t| - s/|s| ||^2, scalar float32, in 0..4; = 2 - 2 mean cosine.

    The angular loss of VarGFaceNet (Yan et al., arXiv 1910.04985), there added to ArcFace with weight 7.
    The gradient goes to the student alone. An embedding of length 0 counts as 0 and gets no gradient.
    """
    apart = l2_normalize(student) - l2_normalize(teacher.detach())
    return (apart * apart).sum(axis=1).mean()
