"""Small networks for the built-in data, by name for ``torch:minutia.study.architectures:NAME``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TOKENS = 64
"""Tokens of ``text:topics``."""


def digits_cnn() -> "torch.nn.Module":
    """Two convolutions and two dense layers for 1x8x8 images, 10 classes."""
    return _digits_cnn(12, 16, 48)


def digits_wide_cnn() -> "torch.nn.Module":
    """``digits_cnn`` with twice as many channels and units: 1x8x8 images, 10 classes."""
    return _digits_cnn(24, 32, 96)


def digits_mlp() -> "torch.nn.Module":
    """Two hidden layers on the 64 pixels: the other architecture."""
    return _dense(64, 64, 48, 10)


def letters_cnn() -> "torch.nn.Module":
    """Two convolutions with batch norm and two dense layers for 1x28x28 images, 10 classes."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 12, 5, stride=2, padding=2),  # (B, 12, 14, 14)
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, padding=1),  # (B, 24, 14, 14)
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (B, 24, 7, 7)
        nn.Flatten(),
        nn.Linear(1176, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def letters_mlp() -> "torch.nn.Module":
    """Two hidden layers on the 784 pixels of 1x28x28 images, 10 classes."""
    return _dense(784, 96, 48, 10)


def tabular_mlp() -> "torch.nn.Module":
    """Two hidden layers for the 30 columns of ``sklearn:breast_cancer``, 2 classes."""
    return _dense(30, 32, 16, 2)


def tabular_wide_mlp() -> "torch.nn.Module":
    """The other architecture for 30 measurements: twice as wide."""
    return _dense(30, 64, 32, 2)


def wine_mlp() -> "torch.nn.Module":
    """Two hidden layers for the 13 columns of ``sklearn:wine``, 3 classes."""
    return _dense(13, 64, 32, 3)


def topics_net() -> "torch.nn.Module":
    """Mean of token embeddings (B, 24, 16) and two dense layers for ``text:topics``, 6 classes."""
    from torch import nn

    class Embedded(nn.Module):
        """Numbers of tokens as floats (B, length) to the mean of their vectors (B, 16)."""

        def __init__(self) -> None:
            super().__init__()
            self.vectors = nn.Embedding(TOKENS, 16)

        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            return self.vectors(x.long().clamp(0, TOKENS - 1)).mean(dim=1)

    return nn.Sequential(Embedded(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 6))


def topics_bag() -> "torch.nn.Module":
    """Counts of the 64 tokens, then two dense layers: the other architecture for ``text:topics``, 6 classes."""
    from torch import nn

    class Counted(nn.Module):
        """Numbers of tokens as floats (B, length) to how often each occurs (B, 64)."""

        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            return nn.functional.one_hot(x.long().clamp(0, TOKENS - 1), TOKENS).float().sum(dim=1)

    return nn.Sequential(Counted(), nn.Linear(TOKENS, 32), nn.ReLU(), nn.Linear(32, 6))


def _digits_cnn(narrow: int, wide: int, units: int) -> "torch.nn.Module":
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, narrow, 3, padding=1),  # (B, narrow, 8, 8)
        nn.ReLU(),
        nn.Conv2d(narrow, wide, 3, stride=2, padding=1),  # (B, wide, 4, 4)
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * wide, units),
        nn.ReLU(),
        nn.Linear(units, 10),
    )


def _dense(inputs: int, first: int, second: int, classes: int) -> "torch.nn.Module":
    from torch import nn

    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, classes),
    )
