"""Image kernels and how they are applied: through one Fourier transform of the padded images for all severities."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@lru_cache(maxsize=256)
def fast_length(length: int) -> int:
    """The next multiple of 16 with no prime factor beyond 5, for which Fourier transforms are fast."""
    length = -(-length // 16) * 16
    rest = length
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    return length if rest == 1 else fast_length(length + 1)


class Padded:
    """Images with a margin, transformed once, to be correlated with any number of kernels.

    images: float (B, C, H, W). margin: pixels (top, bottom, left, right) that kernels may reach beyond a pixel.
    border: 'replicate' (aaa|abc), 'reflect' (cb|abc: OpenCV's default) or 'symmetric' (ba|abc: scipy's 'reflect').
    """

    def __init__(self, images: Tensor, margin: tuple[int, int, int, int], border: str):
        top, bottom, left, right = margin
        self.height, self.width = images.shape[-2:]
        self.origin = top, left
        self.size = fast_length(self.height + top + bottom), fast_length(self.width + left + right)
        self.spectrum = torch.fft.rfft2(pad(images, margin, border), s=self.size)

    def correlate(self, spectrum: Tensor) -> Tensor:
        """spectrum: what `kernel_spectrum` made of a kernel for this size. Returns float (B, C, H, W)."""
        return torch.fft.irfft2(self.spectrum * spectrum, s=self.size)[..., :self.height, :self.width]

    def kernel_spectrum(self, kernels: Tensor) -> Tensor:
        """kernels: float (..., kh, kw), whose element (top, left) of the margin weighs the pixel itself."""
        return torch.fft.rfft2(kernels, s=self.size).conj()


def pad(images: Tensor, margin: tuple[int, int, int, int], border: str) -> Tensor:
    top, bottom, left, right = margin
    if border != 'symmetric':
        return F.pad(images, (left, right, top, bottom), mode=border)
    height, width = images.shape[-2:]
    rows = _mirrored(torch.arange(-top, height + bottom, device=images.device), height)
    columns = _mirrored(torch.arange(-left, width + right, device=images.device), width)
    return images.index_select(-2, rows).index_select(-1, columns)


def _mirrored(index: Tensor, length: int) -> Tensor:
    index = index % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def gaussian_taps(sigma: float, *, truncate: float = 4.0) -> Tensor:
    """Weights of a Gaussian at -r..r with r = truncate * sigma rounded, float64, sum 1: scipy's gaussian_filter1d."""
    radius = int(truncate * sigma + .5)
    taps = torch.exp(-.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return taps / taps.sum()


def gaussian_blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with a repeated border, cut at 4 sigma, as scikit-image's. images: float (B, C, H, W)."""
    taps = gaussian_taps(sigma)
    padded = Padded(images, (len(taps) // 2,) * 4, 'replicate')
    return padded.correlate(padded.kernel_spectrum(torch.outer(taps, taps).to(images)))


def disk(radius: int, alias_blur: float) -> Tensor:
    """A disk, smoothed by a small Gaussian, float64, sum 1: 17 x 17 up to radius 8, else 2 radius + 1 a side.

    As OpenCV's GaussianBlur, 3 x 3 up to radius 8, else 5 x 5, which mirrors the kernel at its own border.
    """
    reach, blur_reach = (8, 1) if radius <= 8 else (radius, 2)
    line = torch.arange(-reach, reach + 1, dtype=torch.float64)
    aliased = (line ** 2 + line[:, None] ** 2 <= radius ** 2).double()
    taps = torch.exp(-.5 * (torch.arange(-blur_reach, blur_reach + 1, dtype=torch.float64) / alias_blur) ** 2)
    taps = taps / taps.sum()
    bordered = F.pad((aliased / aliased.sum())[None, None], (blur_reach,) * 4, mode='reflect')
    return F.conv2d(bordered, torch.outer(taps, taps)[None, None])[0, 0]


def centred(kernel: Tensor, reach: int) -> Tensor:
    """kernel: (k, k) of odd size. Returns it in the middle of (2 reach + 1, 2 reach + 1) zeros, float32."""
    margin = reach - kernel.shape[-1] // 2
    return F.pad(kernel, (margin,) * 4).float()


def motion_kernels(angles: Tensor, radius: int, sigma: float, *, size: tuple[int, int],
                   origin: tuple[int, int], extent: tuple[int, int]) -> Tensor:
    """One-sided Gaussian streaks of 2 radius + 1 pixels, one per angle; pixels beyond the image are left out.

    angles: (B,) degrees. size: (H, W) of the images. origin: (row, column) of the pixel itself in a kernel of
    `extent`. Returns float32 (B, 1, *extent). Taps are not scaled up where a small image cuts the streak short, as in
    the reference.
    """
    count = torch.arange(2 * radius + 1, dtype=torch.float64, device=angles.device)
    weights = torch.exp(-count ** 2 / (2 * sigma ** 2))
    radians = torch.deg2rad(angles.double())[:, None]
    down = torch.ceil(count * torch.sin(radians) - .5)
    right = torch.ceil(count * torch.cos(radians) - .5)
    inside = (down.abs() < size[0]) & (right.abs() < size[1])
    cell = (down + origin[0]) * extent[1] + right + origin[1]
    kernels = torch.zeros(len(angles), extent[0] * extent[1], dtype=torch.float64, device=angles.device)
    kernels.scatter_add_(1, torch.where(inside, cell, 0).long(), torch.where(inside, weights / weights.sum(), 0))
    return kernels.view(-1, 1, *extent).float()
