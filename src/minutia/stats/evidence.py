"""Evidence per query: what one answer is worth."""

from math import log2


def bits_per_query(rate: float, null: float, asked: int) -> float:
    """Bits of evidence per query: the divergence of a suspect's match rate from the highest null model's.

    KL(rate || null) of two coins, in bits; 0 where the suspect matches no more often than the null. Rates are smoothed
    by half a match and half a miss over ``asked`` queries, so that a perfect copy is worth a finite amount. A method
    that ranks well may be worth little: 0.80 against 0.62 takes sixty queries, 0.90 against 0.02 two.
    Raises ValueError for rates outside [0, 1] or no query.

    >>> round(bits_per_query(0.9, 0.02, 1000), 1), round(bits_per_query(0.8, 0.62, 1000), 2)
    (4.6, 0.11)

    References: S. Kullback and R. A. Leibler, Annals of Mathematical Statistics 22, 1951.
    """
    if not (0 <= rate <= 1 and 0 <= null <= 1) or asked < 1:
        raise ValueError(f"expected rates in [0, 1] over 1 or more queries, got {rate}, {null}, {asked}")
    p, q = ((r * asked + 0.5) / (asked + 1) for r in (rate, null))
    return p * log2(p / q) + (1 - p) * log2((1 - p) / (1 - q)) if p > q else 0.0
