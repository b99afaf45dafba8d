"""How far apart two computations of one tensor may be: one table, by dtype and depth.

A sum runs in another order on another CPU: with other vector instructions, another BLAS, more threads. Its rounding
follows the largest values that meet in it, not the result, so a share is one of the largest expected value of the
tensor. A wrong formula changes the third digit or an earlier one; rounding stays in the last one or two:

- float64, eps 2e-16: 1e-9 at any depth. Where a test owns both sides (our code and the formula, our code and timm's)
  it compares in float64, so that no CPU decides.
- float32, eps 1.2e-7. `layer`: one operation, 16 eps. `block`: an attention or a block or two, with their gradients,
  64 eps. `network`: forward through 12 to 32 blocks, 128 eps. `gradient`: back through them, 512 eps. Measured
  against float64: the outputs in tests/reference are off by 14 eps at most, and our float32 by 13 eps, with AVX-512,
  without vector instructions (ATEN_CPU_CAPABILITY=default), and with sums of another CPU (MKL_CBWR=COMPATIBLE).
- bfloat16, eps 8e-3, and float16, eps 1e-3: 1 eps for an operation that computes in float32 and rounds its result, 4
  eps where two or three such results follow one another, 8 eps through ten layers and more.

Tolerances elsewhere in the tests are of other kinds: pytest.approx of Python floats (float64, 1e-6 relative),
torch.testing.assert_close with its own tolerance on elementwise arithmetic of values around 1, attacks on models that
compute in float64 (tests/attacks/toys.py), gray levels of corruptions (one level), and statistics of random draws.
"""

import torch

DEPTHS = ('layer', 'block', 'network', 'gradient')
SHARES = {
    torch.float64: dict.fromkeys(DEPTHS, 1e-9),
    torch.float32: dict(zip(DEPTHS, (2e-6, 8e-6, 1.6e-5, 6e-5))),
    torch.bfloat16: dict(zip(DEPTHS, (8e-3, 3.2e-2, 6.4e-2, 6.4e-2))),
    torch.float16: dict(zip(DEPTHS, (1e-3, 4e-3, 8e-3, 8e-3))),
}


def assert_near(actual, expected, depth, *, dtype=None, scale=None):
    """Assert that a tensor is the expected one, up to the share of its largest value for its dtype and depth.

    dtype: in which it was computed, unless that is its own. scale: the largest value that meets in its sums, where
    those cancel, in place of the largest expected one.
    """
    share = SHARES[dtype or actual.dtype][depth]
    largest = expected.abs().max().item() if scale is None else scale
    torch.testing.assert_close(actual.to(expected.dtype), expected, rtol=0, atol=share * largest)
