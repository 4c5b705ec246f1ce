"""Upsampling rates and kernels for any hop length."""

from __future__ import annotations

from melvoc.errors import SpecError

LARGEST_RATE = 8  # of the published models; more in one step makes audible combs
LARGEST_PRIME = 13
MOST_STAGES = 6  # V2's 128 channels can be halved that often


def upsampling(hop_length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rates whose product is the hop length, and their kernels, chosen as in the published models.

    The two largest divisors up to 8 first, then prime factors: 512 is 8, 8, 2, 2, 2 and 256 is 8, 8, 2, 2. A kernel is
    twice its rate, plus one if the rate is odd, so that the padding is the same on both sides.

    Args:
        hop_length: samples per frame.

    Returns:
        rates, kernels.

    Raises:
        SpecError: a prime factor above 13, more than 6 stages, or a hop length of 1.

    >>> upsampling(300)
    ((6, 5, 5, 2), (12, 11, 11, 4))
    """
    rates = _rates(hop_length)
    if not rates:
        factors = " * ".join(map(str, _prime_factors(hop_length))) or "1"
        raise SpecError(
            f"hop_length={hop_length} = {factors} is not a product of at most {MOST_STAGES} upsampling rates (prime "
            f"factors up to {LARGEST_PRIME}); take a hop_length such as {_nearest(hop_length)}, or give the "
            "generator's configuration"
        )
    return rates, tuple(2 * rate + rate % 2 for rate in rates)


def _rates(hop_length: int) -> tuple[int, ...]:
    """Descending; empty if there are none."""
    rates, rest = [], hop_length
    for _ in range(2):
        rate = max(divisor for divisor in range(1, LARGEST_RATE + 1) if rest % divisor == 0)
        if rate > 1:
            rates.append(rate)
            rest //= rate
    primes = _prime_factors(rest)
    fits = max(primes, default=1) <= LARGEST_PRIME and len(rates) + len(primes) <= MOST_STAGES
    return tuple(sorted(rates + primes, reverse=True)) if fits else ()


def _nearest(hop_length: int) -> int:
    """The nearest hop length that has rates; a power of two is never far."""
    others = range(2, 2 * hop_length + 8)
    return min((other for other in others if _rates(other)), key=lambda other: (abs(other - hop_length), other))


def _prime_factors(number: int) -> list[int]:
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors
