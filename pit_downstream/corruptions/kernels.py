"""Filter kernels and their application: separably, or for all severities through one Fourier transform."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

BAND_VALUES = 2 ** 18  # values of which three float32 copies about fill a core's L2 cache
FEW_TAPS = 16  # radius up to which adding shifted images is faster than a Fourier transform


@lru_cache(maxsize=256)
def find_fast_length(length: int) -> int:
    """Return the next multiple of 16 without a prime factor above 7, for which Fourier transforms are fast."""
    length = -(-length // 16) * 16
    rest = length
    for factor in (2, 3, 5, 7):
        while rest % factor == 0:
            rest //= factor
    return length if rest == 1 else find_fast_length(length + 1)


class PaddedSpectrum:
    """Fourier transform of padded images, for filtering with any number of kernels.

    images: float (B, C, H, W). margin: maximum extent of kernels in pixels (top, bottom, left, right).
    border: 'replicate' (aaa|abc), 'reflect' (cb|abc: OpenCV's default) or 'symmetric' (ba|abc: scipy's 'reflect').
    """

    def __init__(self, images: Tensor, margin: tuple[int, int, int, int], border: str):
        top, bottom, left, right = margin
        self.height, self.width = images.shape[-2:]
        self.first = top + bottom, left + right  # first output without wrap-around
        self.size = find_fast_length(self.height + top + bottom), find_fast_length(self.width + left + right)
        self.spectrum = torch.fft.rfft2(pad_images(images, margin, border), s=self.size)

    def filter(self, spectrum: Tensor) -> Tensor:
        """Filter the images. spectrum: from `kernel_spectrum` for this size. Returns float (B, C, H, W)."""
        whole = torch.fft.irfft2(self.spectrum * spectrum, s=self.size)
        top, left = self.first
        return whole[..., top:top + self.height, left:left + self.width]

    def transform_kernels(self, kernels: Tensor) -> Tensor:
        """Transform kernels: float (..., kh, kw), rotated by 180 degrees.

        Element (bottom, right) of the margin is the weight of the pixel itself. Elements before it are the weights of
        the pixels below and to the right.
        """
        return torch.fft.rfft2(kernels, s=self.size)


def get_size(images: Tensor) -> tuple[int, int]:
    """Return height and width of images (..., H, W)."""
    height, width = images.shape[-2:]
    return height, width


def pad_images(images: Tensor, margin: tuple[int, int, int, int], border: str) -> Tensor:
    top, bottom, left, right = margin
    if border != 'symmetric':
        return F.pad(images, (left, right, top, bottom), mode=border)
    height, width = images.shape[-2:]
    rows = _mirror_index(torch.arange(-top, height + bottom, device=images.device), height)
    columns = _mirror_index(torch.arange(-left, width + right, device=images.device), width)
    return images.index_select(-2, rows).index_select(-1, columns)


def _mirror_index(index: Tensor, length: int) -> Tensor:
    index = index % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def make_gaussian_taps(sigma: float, *, truncate: float = 4.0) -> Tensor:
    """Return Gaussian weights at -r..r, r = round(truncate * sigma), as scipy's gaussian_filter1d: float64, sum 1."""
    radius = int(truncate * sigma + .5)
    taps = torch.exp(-.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return taps / taps.sum()


def filter_gaussian(images: Tensor, sigmas: tuple[float, float], *, truncate: float = 4.0,
                    border: str = 'replicate') -> Tensor:
    """Apply a Gaussian blur, by default as scikit-image. images: float (B, C, H, W). sigmas: vertical, horizontal."""
    down, right = (make_gaussian_taps(sigma, truncate=truncate) for sigma in sigmas)
    reach = len(down) // 2, len(right) // 2
    margin = (reach[0], reach[0], reach[1], reach[1])
    if max(reach) > FEW_TAPS:
        spectral = PaddedSpectrum(images, margin, border)
        return spectral.filter(spectral.transform_kernels(torch.outer(down, right).to(images)))
    tall = pad_images(images, (reach[0], reach[0], 0, 0), border)
    blurred = torch.empty_like(images)
    for rows in split_into_bands(images):
        columns = filter_line(tall[..., rows.start:rows.stop + 2 * reach[0], :], down.tolist(), -2)
        blurred[..., rows, :] = filter_line(pad_images(columns, (0, 0, reach[1], reach[1]), border), right.tolist(), -1)
    return blurred


def split_into_bands(images: Tensor) -> Iterator[slice]:
    """Split the rows into slices that fit in a CPU's cache. On other devices all rows are one slice."""
    height = images.shape[-2]
    count = max(1, BAND_VALUES * height // max(1, images.numel())) if images.device.type == 'cpu' else height
    for start in range(0, height, count):
        yield slice(start, min(start + count, height))


def filter_line(images: Tensor, taps: Sequence[float], dim: int) -> Tensor:
    """Correlate along one dimension with symmetric taps. The output is shorter by their radius at both ends."""
    reach, length = len(taps) // 2, images.shape[dim] - len(taps) + 1
    result = images.narrow(dim, reach, length) * taps[reach]
    for offset in range(1, reach + 1):
        pair = images.narrow(dim, reach - offset, length) + images.narrow(dim, reach + offset, length)
        result.add_(pair, alpha=taps[reach + offset])
    return result


def make_disk(radius: int, alias_blur: float) -> Tensor:
    """Return a disk smoothed by a small Gaussian, float64, sum 1: 17 x 17 up to radius 8, else 2 radius + 1 per side.

    The smoothing is OpenCV's GaussianBlur, 3 x 3 up to radius 8, else 5 x 5, with the disk reflected at its border.
    """
    reach, blur_reach = (8, 1) if radius <= 8 else (radius, 2)
    line = torch.arange(-reach, reach + 1, dtype=torch.float64)
    aliased = (line ** 2 + line[:, None] ** 2 <= radius ** 2).double()
    taps = torch.exp(-.5 * (torch.arange(-blur_reach, blur_reach + 1, dtype=torch.float64) / alias_blur) ** 2)
    taps = taps / taps.sum()
    bordered = F.pad((aliased / aliased.sum())[None, None], (blur_reach,) * 4, mode='reflect')
    return F.conv2d(bordered, torch.outer(taps, taps)[None, None])[0, 0]


def center_kernel(kernel: Tensor, reach: int) -> Tensor:
    """Pad a kernel (k, k) of odd size with zeros to (2 reach + 1, 2 reach + 1), float32."""
    margin = reach - kernel.shape[-1] // 2
    return F.pad(kernel, (margin,) * 4).float()


def make_motion_kernels(angles: Tensor, radius: int, sigma: float, *, size: tuple[int, int],
                        margin: tuple[int, int, int, int]) -> Tensor:
    """Return one-sided Gaussian streaks of 2 radius + 1 pixels, one per angle, for `PaddedSpectrum` with this margin.

    angles: (B,) degrees. size: (H, W) of the images. Returns float32 (B, 1, top + bottom + 1, left + right + 1). As in
    the reference, taps outside a small image are dropped without rescaling the others.
    """
    top, bottom, left, right = margin
    count = torch.arange(2 * radius + 1, dtype=torch.float64, device=angles.device)
    weights = torch.exp(-count ** 2 / (2 * sigma ** 2))
    radians = torch.deg2rad(angles.double())[:, None]
    rows = torch.ceil(count * torch.sin(radians) - .5)
    columns = torch.ceil(count * torch.cos(radians) - .5)
    inside = (rows.abs() < size[0]) & (columns.abs() < size[1])
    cells = (bottom - rows) * (left + right + 1) + right - columns
    kernels = torch.zeros(len(angles), (top + bottom + 1) * (left + right + 1), dtype=torch.float64,
                          device=angles.device)
    kernels.scatter_add_(1, torch.where(inside, cells, 0).long(), torch.where(inside, weights / weights.sum(), 0))
    return kernels.view(-1, 1, top + bottom + 1, left + right + 1).float()
