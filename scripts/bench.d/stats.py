"""The middle of a few noisy pairs, and how sure it is.

Runs of one round stand beside each other in time, so figures are differences (or ratios) of the
same round. The interval is the distribution-free one of the Wilcoxon signed-rank test: order
statistics of the Walsh averages (M. Hollander, D. A. Wolfe, E. Chicken, Nonparametric Statistical
Methods, 3rd ed., sections 3.1 to 3.3; J. L. Hodges, E. L. Lehmann, Annals of Mathematical
Statistics 34, 1963). It takes the differences as symmetric about their middle, not as normal.

SPDX-License-Identifier: Apache-2.0
"""

import math
import statistics

LEVEL = 0.95
LEAST = 6  # fewer pairs can't give a 95 % interval: 2 * 2^-5 > 0.05


def signed_rank_counts(n):
    """How many of the 2^n sign patterns give each value of the signed-rank statistic."""
    counts = [1]
    for rank in range(1, n + 1):
        longer = counts + [0] * rank
        for i, c in enumerate(counts):
            longer[i + rank] += c
        counts = longer
    return counts


def trimmed(n, level=LEVEL):
    """How many Walsh averages to leave out at each end; None: n is too small for the level."""
    tail, allowed = 0, (1 - level) / 2 * 2 ** n
    for value, count in enumerate(signed_rank_counts(n)):
        tail += count
        if tail > allowed:
            return value - 1 if value else None
    return None


def interval(values, level=LEVEL):
    """(low, high) of the middle of values; None for too few of them."""
    n = len(values)
    cut = trimmed(n, level) if n >= LEAST else None
    if cut is None:
        return None
    walsh = sorted((values[i] + values[j]) / 2 for i in range(n) for j in range(i, n))
    return walsh[cut], walsh[-1 - cut]


def middle(values, ratio=False):
    """(median, low, high), low and high None where there are too few. Ratios by their logarithms."""
    if not values:
        return None
    between = interval([math.log(v) for v in values] if ratio else values)
    if between and ratio:
        between = tuple(math.exp(x) for x in between)
    low, high = between or (None, None)
    return statistics.median(values), low, high
