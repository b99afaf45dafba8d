"""JPEG compression: through Pillow's codec on a CPU, as tensor operations on other devices, with the same values.

The tensor operations are color conversion, chroma subsampling, DCT, quantization, and their inverses. They reproduce
libjpeg-turbo's integer arithmetic with Pillow's settings (4:2:0, the accurate integer DCT, smooth chroma upsampling)
on integer-valued float32. Entropy coding is lossless and omitted.
Sources: ITU-T T.81; the Independent JPEG Group's jccolor, jcsample, jfdctint, jcdctmgr, jidctint, jdsample, jdcolor.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from pit_downstream.utils.errors import InputError

LUMA = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
        14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
        49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99)  # T.81 table K.1
CHROMA = (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
          47, 66, 99, 99, 99, 99, 99, 99) + (99,) * 32  # T.81 table K.2
# 2^16 times the weights of R, G, B in Y, Cb, Cr, and the offsets added before the division by 2^16 (jccolor)
TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
YCC_OFFSETS = (2 ** 15, (128 << 16) + 2 ** 15 - 1, (128 << 16) + 2 ** 15 - 1)
CONSTANT_BITS, PASS_BITS = 13, 2  # of the DCT: its constants are scaled by 2^13, its rows by 2^2


@lru_cache(maxsize=8)
def make_dct_matrix(device: torch.device) -> Tensor:
    """Return the 8-point integer DCT as a matrix, times 2^13: float32 (8, 8), frequency by sample.

    The entries are the products of the constants in jfdctint and jidctint, and are integers.
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
def make_quantization_table(quality: int, chroma: bool, device: torch.device) -> Tensor:
    """Return the 8 x 8 quantization steps at a quality of 1..100, float32."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = (torch.tensor(CHROMA if chroma else LUMA) * percent + 50).div(100, rounding_mode='floor')
    return steps.clamp(1, 255).view(8, 8).float().to(device)


def round_shift(values: Tensor, bits: int) -> Tensor:
    """Return values / 2^bits, rounded half up."""
    return values.mul_(2.0 ** -bits).add_(.5).floor_()


def apply_jpeg(images: Tensor, qualities: Sequence[int]) -> Iterator[Tensor]:
    """Compress and decompress images as Pillow does, once per quality (1..100).

    images: uint8 (B, 3, H, W), RGB, any size. Yields the same shape.
    """
    for quality in qualities:
        if quality not in range(1, 101):
            raise InputError(f'JPEG quality must be in 1..100, got {quality}. Choose another one.')
    if images.device.type == 'cpu':
        yield from apply_pillow_jpeg(images, qualities)
        return
    coefficients = DctCoefficients(images)
    for quality in qualities:
        yield coefficients.decode(quality)


@contextmanager
def disable_low_precision(device: torch.device) -> Iterator[None]:
    """Disable autocast and TensorFloat-32, whose precision is too low for these integers."""
    try:
        set_precision = torch.set_float32_matmul_precision
        before, exact = torch.get_float32_matmul_precision(), 'highest'
    except RuntimeError:  # set through torch.backends (torch 2.9), which must not be mixed with this API
        matmul = torch.backends.cuda.matmul
        before, exact, set_precision = matmul.fp32_precision, 'ieee', partial(setattr, matmul, 'fp32_precision')
    set_precision(exact)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        set_precision(before)


class DctCoefficients:
    """DCT coefficients of images before quantization, shared by all qualities.

    images: uint8 (B, 3, H, W), RGB, any size.
    """

    def __init__(self, images: Tensor):
        self.size = tuple(images.shape[-2:])
        with disable_low_precision(images.device):
            planes = convert_to_ycc(images)
            self.coefficients = [apply_dct(pad_to_multiple(planes[:, :1], 16)), apply_dct(reduce_chroma(planes[:, 1:]))]

    def decode(self, quality: int) -> Tensor:
        """Return the images after compression at `quality`, uint8 (B, 3, H, W)."""
        height, width = self.size
        with disable_low_precision(self.coefficients[0].device):
            luma, chroma = (
                invert_dct(quantize_coefficients(planes, make_quantization_table(quality, is_chroma, planes.device)))
                for planes, is_chroma in zip(self.coefficients, (False, True), strict=True))
        chroma = expand_chroma(chroma[..., :(height + 1) // 2, :(width + 1) // 2])
        return convert_to_rgb(luma[..., :height, :width], chroma[..., :height, :width])


def convert_to_ycc(images: Tensor) -> Tensor:
    """Convert uint8 RGB to integer YCbCr in 0..255, float32 (B, 3, H, W). Exact, as all sums are below 2^24."""
    weights = torch.tensor(TO_YCC, dtype=torch.float32, device=images.device)
    offsets = torch.tensor(YCC_OFFSETS, dtype=torch.float32, device=images.device)
    planes = weights @ images.float().flatten(2) + offsets[:, None]
    return planes.mul_(2.0 ** -16).floor_().view(images.shape)


def pad_to_multiple(planes: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sides are divisible by `multiple`."""
    below, beside = (-length % multiple for length in planes.shape[-2:])
    return F.pad(planes, (0, beside, 0, below), mode='replicate') if below or beside else planes


def reduce_chroma(planes: Tensor) -> Tensor:
    """Average 2 x 2 pixels, alternately rounded down and up along a row as in jcsample. Pads to 8 x 8 blocks."""
    bordered = F.pad(planes, (0, -planes.shape[-1] % 16, 0, -planes.shape[-2] % 2), mode='replicate')
    rows = bordered[..., ::2, :] + bordered[..., 1::2, :]
    bias = torch.arange(rows.shape[-1] // 2, device=planes.device) % 2 + 1
    return pad_to_multiple((rows[..., ::2] + rows[..., 1::2]).add_(bias).mul_(.25).floor_(), 8)


def apply_dct(planes: Tensor) -> Tensor:
    """Compute the integer DCT of 8 x 8 blocks, at 8 times the usual scale: (B, C, H, W) -> (B, C, H / 8, 8, W)."""
    matrix = make_dct_matrix(planes.device)
    rows = round_shift(transform_rows(planes - 128, matrix.T), CONSTANT_BITS - PASS_BITS)
    return round_shift(matrix @ rows.unflatten(-2, (-1, 8)), CONSTANT_BITS + PASS_BITS)


def transform_rows(planes: Tensor, matrix: Tensor) -> Tensor:
    """Multiply every 8 pixels of a row by an (8, 8) matrix, two groups at a time if possible, which is faster."""
    pairs = torch.block_diag(matrix, matrix) if planes.shape[-1] % 16 == 0 else matrix
    return (planes.reshape(-1, len(pairs)) @ pairs).view(planes.shape)


def quantize_coefficients(coefficients: Tensor, steps: Tensor) -> Tensor:
    """Round coefficients (B, C, h, 8, W) to multiples of their step (8, 8), halves away from zero."""
    steps = steps.repeat(1, coefficients.shape[-1] // 8)
    scaled = coefficients / (8 * steps)  # division: multiplication by the reciprocal misses some halves
    return scaled.add_(torch.copysign(scaled.new_tensor(.5), scaled)).to(torch.int16) * steps  # int16 truncates


def invert_dct(coefficients: Tensor) -> Tensor:
    """Compute the integer inverse DCT: (B, C, H / 8, 8, W) -> (B, C, H, W), integers in 0..255."""
    matrix = make_dct_matrix(coefficients.device)
    columns = round_shift(matrix.T @ coefficients, CONSTANT_BITS - PASS_BITS).flatten(-3, -2)
    both = round_shift(transform_rows(columns, matrix), CONSTANT_BITS + PASS_BITS + 3)
    return both.add_(128).clamp_(0, 255)


def expand_chroma(planes: Tensor) -> Tensor:
    """Double the size: 3/4 of the nearer plus 1/4 of the farther sample on each axis, rounded as in jdsample."""
    bordered = F.pad(planes, (1, 1, 1, 1), mode='replicate')
    near = bordered[..., 1:-1, :] * 3
    rows = torch.stack((near + bordered[..., :-2, :], near + bordered[..., 2:, :]), -2).flatten(-3, -2)
    near = rows[..., 1:-1] * 3
    left, right = near + rows[..., :-2], near + rows[..., 2:]
    halves = torch.complex(left.add_(8), right.add_(7))  # faster than stack along the last axis
    return torch.view_as_real(halves).flatten(-2).mul_(1 / 16).floor_()


def convert_to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """Convert integer Y (B, 1, H, W) and Cb, Cr (B, 2, H, W) to uint8 RGB."""
    blue, red = (chroma - 128).unbind(1)
    shifts = torch.empty_like(luma.expand(-1, 3, -1, -1), memory_format=torch.contiguous_format)
    torch.mul(red, 91881, out=shifts[:, 0])  # 2^16 times 1.402, -0.34414, -0.71414, 1.772 (jdcolor)
    torch.mul(blue, -22554, out=shifts[:, 1]).sub_(red, alpha=46802)
    torch.mul(blue, 116130, out=shifts[:, 2])
    return (luma + round_shift(shifts, 16)).clamp_(0, 255).to(torch.int16).to(torch.uint8)


def apply_pillow_jpeg(images: Tensor, qualities: Sequence[int]) -> Iterator[Tensor]:
    """Compress and decompress images at each quality (1..100). images: uint8 (B, 3, H, W), RGB, on the CPU."""
    # merging three planes in Pillow is four times as fast as interleaving the pixels first
    decoded = [Image.merge('RGB', [Image.fromarray(plane) for plane in image.numpy()]) for image in images]
    for quality in qualities:
        out = torch.empty_like(images, memory_format=torch.contiguous_format)
        for image, result in zip(decoded, out, strict=True):
            result.numpy()[:] = _encode_and_decode(image, quality).transpose(1, 0, 2)
        yield out


def _encode_and_decode(image: Image.Image, quality: int) -> np.ndarray:
    """Compress and decompress one image. Returns uint8 (H, 3, W): Pillow's line-interleaved output is the fastest."""
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=quality)
    file.seek(0)
    lines = JpegImageFile(file).tobytes('raw', 'RGB;L')
    return np.frombuffer(lines, np.uint8).reshape(image.height, 3, image.width)
