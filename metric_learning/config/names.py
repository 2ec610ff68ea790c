"""What options may be called. Tests hold these equal to the tables of losses, backbones and data sources."""

MODELS = ("ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152")
ELEMENT_LOSSES = ("softmax", "arcmargin")
PAIR_LOSSES = ("triplet", "quadruplet", "quadruplet_full", "eml", "npairs")
MININGS = ("given", "batch_hard", "semi_hard", "batch_all")
DATASETS = ("sop", "folders", "groups", "csv")
STRATEGIES = ("piecewise_decay", "cosine_decay", "linear_decay", "constant")
OPTIMIZERS = ("momentum", "adam")
PRECISIONS = ("auto", "float32", "bfloat16")
SPLITS = ("test", "val", "train", "all")
