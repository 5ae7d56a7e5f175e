"""Small networks for the built-in data, by name for ``torch:minutia.study.architectures:NAME``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def digits_cnn() -> "torch.nn.Module":
    """Two convolutions and two dense layers for 1x8x8 images, 10 classes."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),  # (B, 12, 8, 8)
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2, padding=1),  # (B, 16, 4, 4)
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )


def digits_mlp() -> "torch.nn.Module":
    """Two hidden layers on the 64 pixels: the other architecture."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
