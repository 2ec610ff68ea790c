"""What replaces the defaults, unless typed otherwise: where no data is given, and with --task=classify."""

from typing import Any

# The demo faces, small enough for two cores.
DEMO: dict[str, Any] = {
    "model": "ResNet18",
    "image_shape": "3,56,56",
    "test_crop": 1.0,
    "min_crop_area": 0.75,
    "max_crop_aspect": 1.0,
    "weight_decay": 5e-4,
    "test_classes": 60,
    "val_classes": 20,
    "display_iter_step": 10,
    "save_iter_step": 50,
}

TRIPLETS = 60  # pictures a step where triplets are given: whole ones, also for two, three or four processes

# With --task=classify: a small network and few passes, for two cores.
CLASSIFY: dict[str, Any] = {
    "model": "SmallCNN",
    "image_shape": "3,64,64",
    "test_crop": 1.0,
    "min_crop_area": 0.7,
    "max_crop_aspect": 1.0,
    "train_batch_size": 64,
    "weight_decay": 5e-4,
    "optimizer": "adam",
    "lr": 0.001,
    "lr_strategy": "cosine_decay",
    "warmup_steps": 20,
    "epochs": 20.0,
}
