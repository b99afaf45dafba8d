"""What JPEG does to an image: on a CPU through Pillow's codec, elsewhere without a file, to the same values.

Without a file: color, half-size chroma, DCT, quantisation, and the way back. Every step is libjpeg-turbo's integer
arithmetic (as Pillow uses it: 4:2:0, the accurate integer DCT, smooth chroma upsampling), computed on float32 that hold
whole numbers. Entropy coding loses nothing and is left out.
Sources: ITU-T T.81; the Independent JPEG Group's jccolor, jcsample, jfdctint, jcdctmgr, jidctint, jdsample, jdcolor.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.corruptions.codec import through_codec

LUMA = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
        14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
        49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99)  # T.81 table K.1
CHROMA = (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
          47, 66, 99, 99, 99, 99, 99, 99) + (99,) * 32  # T.81 table K.2
# 2^16 times the weights of R, G, B in Y, Cb, Cr, and what is added before the cut at 2^16 (jccolor)
TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
YCC_OFFSETS = (2 ** 15, (128 << 16) + 2 ** 15 - 1, (128 << 16) + 2 ** 15 - 1)
CONSTANT_BITS, PASS_BITS = 13, 2  # of the DCT: its constants are scaled by 2^13, its rows by 2^2


@lru_cache(maxsize=8)
def dct_matrix(device: torch.device) -> Tensor:
    """The 8-point DCT as its integer factorisation adds it up, times 2^13: float32 (8, 8), frequency by sample.

    jfdctint and jidctint build their sums from these constants; multiplied out they are whole numbers.
    """
    c = {'0.298': 2446, '0.390': 3196, '0.541': 4433, '0.765': 6270, '0.899': 7373, '1.175': 9633, '1.501': 12299,
         '1.847': 15137, '1.961': 16069, '2.053': 16819, '2.562': 20995, '3.072': 25172}
    even = {2: (c['0.541'] + c['0.765'], c['0.541']), 6: (c['0.541'], c['0.541'] - c['1.847'])}
    # weights of tmp4..tmp7 (x3 - x4, x2 - x5, x1 - x6, x0 - x7) in the odd outputs
    z1, z2, z3, z4, z5 = -c['0.899'], -c['2.562'], -c['1.961'], -c['0.390'], c['1.175']
    odd = {7: (c['0.298'] + z1 + z3 + z5, z5, z3 + z5, z1 + z5),
           5: (z5, c['2.053'] + z2 + z4 + z5, z2 + z5, z4 + z5),
           3: (z3 + z5, z2 + z5, c['3.072'] + z2 + z3 + z5, z5),
           1: (z1 + z5, z4 + z5, z5, c['1.501'] + z1 + z4 + z5)}
    rows = torch.zeros(8, 8)
    one = 2 ** CONSTANT_BITS
    rows[0] = one
    rows[4] = torch.tensor([one, -one, -one, one, one, -one, -one, one])
    for frequency, (outer, inner) in even.items():
        rows[frequency] = torch.tensor([outer, inner, -inner, -outer, -outer, -inner, inner, outer])
    for frequency, (third, second, first, zeroth) in odd.items():
        rows[frequency] = torch.tensor([zeroth, first, second, third, -third, -second, -first, -zeroth])
    return rows.to(device)


@lru_cache(maxsize=64)
def quantisation(quality: int, chroma: bool, device: torch.device) -> Tensor:
    """The 8 x 8 steps at a quality of 1..100, float32."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = (torch.tensor(CHROMA if chroma else LUMA) * percent + 50).div(100, rounding_mode='floor')
    return steps.clamp(1, 255).view(8, 8).float().to(device)


def rounded(values: Tensor, bits: int) -> Tensor:
    """values / 2^bits, rounded half up."""
    return values.mul_(2.0 ** -bits).add_(.5).floor_()


def compressed(images: Tensor, qualities: Sequence[int]) -> Iterator[Tensor]:
    """Images as Pillow would read them from the JPEG files that it wrote, for one quality (1..100) after the other.

    images: uint8 (B, 3, H, W) in RGB, any size. Yields the same shape.
    """
    for quality in qualities:
        if quality not in range(1, 101):
            raise ValueError(f'the quality of a JPEG is 1..100, got {quality}')
    if images.device.type == 'cpu':
        yield from through_codec(images, qualities)
        return
    spectrum = Spectrum(images)
    for quality in qualities:
        yield spectrum.at(quality)


@contextmanager
def whole_products(device: torch.device) -> Iterator[None]:
    """Products of float32 without autocast and TensorFloat-32, whose few bits do not hold these whole numbers."""
    try:
        set_precision = torch.set_float32_matmul_precision
        before, exact = torch.get_float32_matmul_precision(), 'highest'
    except RuntimeError:  # it was set through torch.backends, torch 2.9's way, which must not be mixed with that one
        matmul = torch.backends.cuda.matmul
        before, exact, set_precision = matmul.fp32_precision, 'ieee', partial(setattr, matmul, 'fp32_precision')
    set_precision(exact)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        set_precision(before)


class Spectrum:
    """Images ready to be quantized: their DCT coefficients, which all qualities share.

    images: uint8 (B, 3, H, W) in RGB, any size.
    """

    def __init__(self, images: Tensor):
        self.size = tuple(images.shape[-2:])
        with whole_products(images.device):
            planes = ycc(images)
            self.coefficients = [forward(whole_blocks(planes[:, :1], 16)), forward(halved_chroma(planes[:, 1:]))]

    def at(self, quality: int) -> Tensor:
        """The images compressed at `quality` and decompressed, uint8 (B, 3, H, W)."""
        height, width = self.size
        with whole_products(self.coefficients[0].device):
            luma, chroma = (inverse(quantised(coefficients, quantisation(quality, is_chroma, coefficients.device)))
                            for coefficients, is_chroma in zip(self.coefficients, (False, True), strict=True))
        chroma = doubled(chroma[..., :(height + 1) // 2, :(width + 1) // 2])
        return rgb(luma[..., :height, :width], chroma[..., :height, :width])


def ycc(images: Tensor) -> Tensor:
    """uint8 RGB to whole numbers in 0..255, float32 (B, 3, H, W). All sums stay below 2^24, so float32 is exact."""
    weights = torch.tensor(TO_YCC, dtype=torch.float32, device=images.device)
    offsets = torch.tensor(YCC_OFFSETS, dtype=torch.float32, device=images.device)
    planes = weights @ images.float().flatten(2) + offsets[:, None]
    return planes.mul_(2.0 ** -16).floor_().view(images.shape)


def whole_blocks(planes: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples."""
    below, beside = (-length % multiple for length in planes.shape[-2:])
    return F.pad(planes, (0, beside, 0, below), mode='replicate') if below or beside else planes


def halved_chroma(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, rounded down and up in turns along a row, as jcsample does it; whole 8 x 8 blocks."""
    bordered = F.pad(planes, (0, -planes.shape[-1] % 16, 0, -planes.shape[-2] % 2), mode='replicate')
    rows = bordered[..., ::2, :] + bordered[..., 1::2, :]
    bias = torch.arange(rows.shape[-1] // 2, device=planes.device) % 2 + 1
    return whole_blocks((rows[..., ::2] + rows[..., 1::2]).add_(bias).mul_(.25).floor_(), 8)


def forward(planes: Tensor) -> Tensor:
    """The integer DCT of 8 x 8 blocks, 8 times the usual scale: (B, C, H, W) -> (B, C, H / 8, 8, W)."""
    matrix = dct_matrix(planes.device)
    rows = rounded(along_rows(planes - 128, matrix.T), CONSTANT_BITS - PASS_BITS)
    return rounded(matrix @ rows.unflatten(-2, (-1, 8)), CONSTANT_BITS + PASS_BITS)


def along_rows(planes: Tensor, matrix: Tensor) -> Tensor:
    """Every 8 neighbors of a row times an (8, 8) matrix; two at a time where that fits, which is faster."""
    pairs = torch.block_diag(matrix, matrix) if planes.shape[-1] % 16 == 0 else matrix
    return (planes.reshape(-1, len(pairs)) @ pairs).view(planes.shape)


def quantised(coefficients: Tensor, steps: Tensor) -> Tensor:
    """Coefficients (B, C, h, 8, W) rounded to multiples of their step (8, 8), halves away from zero."""
    steps = steps.repeat(1, coefficients.shape[-1] // 8)
    scaled = coefficients / (8 * steps)  # a quotient: times the reciprocal would miss some halves
    return scaled.add_(torch.copysign(scaled.new_tensor(.5), scaled)).to(torch.int16) * steps  # int16 truncates


def inverse(coefficients: Tensor) -> Tensor:
    """The integer inverse DCT: (B, C, H / 8, 8, W) -> (B, C, H, W), whole numbers in 0..255."""
    matrix = dct_matrix(coefficients.device)
    columns = rounded(matrix.T @ coefficients, CONSTANT_BITS - PASS_BITS).flatten(-3, -2)
    both = rounded(along_rows(columns, matrix), CONSTANT_BITS + PASS_BITS + 3)
    return both.add_(128).clamp_(0, 255)


def doubled(planes: Tensor) -> Tensor:
    """Twice the size: 3/4 of the nearer and 1/4 of the farther sample on each axis, rounded as jdsample does it."""
    bordered = F.pad(planes, (1, 1, 1, 1), mode='replicate')
    near = bordered[..., 1:-1, :] * 3
    rows = torch.stack((near + bordered[..., :-2, :], near + bordered[..., 2:, :]), -2).flatten(-3, -2)
    near = rows[..., 1:-1] * 3
    left, right = near + rows[..., :-2], near + rows[..., 2:]
    halves = torch.complex(left.add_(8), right.add_(7))  # side by side: faster than stack along the last axis
    return torch.view_as_real(halves).flatten(-2).mul_(1 / 16).floor_()


def rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """Whole numbers Y (B, 1, H, W) and Cb, Cr (B, 2, H, W) to uint8 RGB."""
    blue, red = (chroma - 128).unbind(1)
    shifts = torch.empty_like(luma.expand(-1, 3, -1, -1), memory_format=torch.contiguous_format)
    torch.mul(red, 91881, out=shifts[:, 0])  # 2^16 times 1.402, -0.34414, -0.71414, 1.772 (jdcolor)
    torch.mul(blue, -22554, out=shifts[:, 1]).sub_(red, alpha=46802)
    torch.mul(blue, 116130, out=shifts[:, 2])
    return (luma + rounded(shifts, 16)).clamp_(0, 255).to(torch.int16).to(torch.uint8)
