"""Kinship of matched weights: whether one holds the other, both hold a third, or one is an average."""

from collections.abc import Sequence

import numpy as np

from minutia.core.comparison import Kinship, LayerMatch, Relation

HOLDS = 0.97
"""Regression slope from which on one checkpoint's weights are taken to be in the other whole."""
SIZES = 3.0
"""Ratio of squared sizes up to which a slope tells anything: any slope can be had by scaling."""
SAME = 0.985
"""Cosine from which on the question who holds whom is idle: nothing but light changes lie between."""
LARGEST = 0.8
"""Share from which on an average is not told from a tuned copy."""
SPREAD = 0.15
"""How far slopes of layers may lie from an average's, relative to them."""


def merged_share(kinships: Sequence[Kinship]) -> float | None:
    """The share of the first in the second where it looks like an average with a stranger, else None.

    In w f + (1 - w) h with h of the size of f and nothing in common with it, the slopes are w and
    w / (w^2 + (1 - w)^2), in every layer alike. Siblings have slopes alike in both directions, or no constant ones.

    >>> w, back = 0.3, 0.3 / (0.09 + 0.49)
    >>> round(merged_share([Kinship(0.4, w, back)] * 3), 3)
    0.3
    """
    if len(kinships) < 2:
        return None
    for there, back in (("there", "back"), ("back", "there")):
        share = float(np.median([getattr(k, there) for k in kinships]))
        if not 0.05 < share < LARGEST:
            continue
        expected = share / (share**2 + (1 - share) ** 2)
        near = [abs(getattr(k, there) - share) < SPREAD * share for k in kinships]
        fits = [abs(getattr(k, back) - expected) < SPREAD * expected for k in kinships]
        if np.mean(near) > 0.7 and np.mean(fits) > 0.7:
            return share
    return None


def holds(kinships: Sequence[Kinship]) -> bool:
    """Whether one checkpoint holds the weights of the other, as far as layers are related.

    Calibrated in a laboratory of tiny language models. The larger slope, median over layers, was 1.00 to 1.18 for
    copies tuned for 150 to 3,000 steps (of a parent of 600 to 3,000), with low-rank adapters, quantised, pruned
    to 20 %, averaged with a sibling or a stranger; .43 to .50 for two full trainings of one initialisation, .77 to
    .84 for short ones (600 steps), .94 for two children of one young ancestor. One that has hardly moved from
    the common start holds it, and is rightly taken for a parent.

    >>> holds([Kinship(0.8, 1.01, 0.6)]), holds([Kinship(0.8, 0.8, 0.8)])
    (True, False)
    """
    there, back = (float(np.median([getattr(k, way) for k in kinships])) for way in ("there", "back"))
    comparable = 1 / SIZES <= there / max(back, 1e-12) <= SIZES
    return bool((max(there, back) >= HOLDS and comparable) or np.median([k.cosine for k in kinships]) >= SAME)


def origin(strip: Sequence[LayerMatch]) -> tuple[Relation, float | None]:
    """What related layers are to each other, and the share in an average where one of the two is one.

    >>> origin([LayerMatch(0, 0, "layer 0", 1.0, Kinship(0.8, 0.8, 0.8))])
    ('shared ancestor or initialisation', None)
    """
    # A public embedding may be built upon anew: where layers were compared, it proves no descent by itself.
    layers = [match for match in strip if match.first >= 0] or strip
    related = [match.kinship for match in layers if match.related and match.kinship is not None]
    merged = merged_share(related)
    whole = bool(related) and (merged is not None or holds(related))
    return ("derived" if whole else "shared ancestor or initialisation"), merged
