"""What options may be called. Tests hold these equal to the tables of losses, backbones and data sources."""

_DEPTHS = (18, 34, 50, 101, 152)
MODELS = (
    *(f"{family}{depth}" for family in ("ResNet", "IR", "IRSE") for depth in _DEPTHS),
    *("MobileNetV1", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small"),
    *("MobileFaceNet", "MobileFaceNetReLU6", "MobileFaceNetX2", "VarGFaceNet", "VGG16", "VGG16BN", "ViTS16"),
    *("SmallCNN", "DeeperCNN"),
)
ELEMENT_LOSSES = ("softmax", "bce", "arcmargin", "amsoftmax", "sphereface", "magface", "curricularface", "adaface")
PAIR_LOSSES = (
    *("triplet", "quadruplet", "quadruplet_full", "eml", "npairs"),
    *("contrastive", "multi_similarity", "circle", "supcon", "recall_at_k"),
)
TASKS = ("embed", "classify")
VOTES = ("hard", "soft", "weighted", "fusion")
EXPORTS = ("paddle", "onnx")
MININGS = ("given", "batch_hard", "semi_hard", "batch_all")
DATASETS = ("sop", "folders", "groups", "csv", "recordio")
STRATEGIES = ("piecewise_decay", "cosine_decay", "linear_decay", "constant", "plateau")
OPTIMIZERS = ("momentum", "adam")
PRECISIONS = ("auto", "float32", "bfloat16")
FROZEN = ("none", "norms", "backbone")
BALANCES = ("none", "groups")
CENTERS = ("all", "partial", "pool")
AMP = ("none", "float16", "bfloat16")
CENTER_STARTS = ("random", "means")
SPLITS = ("test", "val", "train", "all")
OCCLUSIONS = ("none", "random", "adversarial")
OCCLUSION_SHAPES = ("left", "right", "top", "bottom", "random_half")
OCCLUSION_BLOCKS = ("eyes", "nose", "mouth")
COLOURS = ("brightness", "contrast", "saturation")  # what color_jitter is, each by itself
AUGMENTATIONS = (*COLOURS, "gray_rate", "rotation", "vertical_flip", "noise", "salt_pepper", "blur", "cutout")
