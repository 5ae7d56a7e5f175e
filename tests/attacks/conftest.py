"""A victim for handwritten digits and a thief's material, for attacks that need a real task."""

import numpy as np
import pytest

from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.models.toy import ToyClassifier


@pytest.fixture(scope="session")
def digits():
    """Victim and material; nobody changes them."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    x, y = (found.images[order] / 16).astype(np.float32)[:, None], found.target[order]
    victim = ToyClassifier.fresh((64, 32, 10), 1).trained(x[:600], y[:600], Plan(20, learning_rate=5e-3), 0)
    return victim, Material(x[600:1000], y[600:1000], held_out=(x[1000:], y[1000:]))
