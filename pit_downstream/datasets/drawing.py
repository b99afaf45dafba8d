"""Drawing primitives of the bundled dataset: outlines, textures and colors.

All functions use only + - * / sqrt, floor, comparisons and uniform draws, which IEEE 754 defines bit-exactly. They
avoid sin, exp, pow, matrix products and float sums, which depend on the machine's vector unit. A seed therefore
gives the same image on every machine.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray
Color = tuple[float, float, float]
Outline = Callable[[Array, Array, float], Array]
Texture = Callable[[Array, Array, float, np.random.Generator], Array]

TAN_22_5 = 0.4142135623730951


# Random numbers ------------------------------------------------------------------------------------------------------

def draw_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number in [low, high) from the raw stream."""
    return low + (high - low) * rng.random()


def draw_direction(rng: np.random.Generator) -> tuple[float, float]:
    """Draw (cosine, sine) of a random angle, nearly uniform over the full circle.

    The half-angle formula covers -45..45 degrees. Random quarter turns cover the rest.
    """
    cosine, sine = draw_tilt(rng, TAN_22_5)
    for _ in range(int(rng.integers(4))):
        cosine, sine = -sine, cosine
    return cosine, sine


def draw_tilt(rng: np.random.Generator, tan_half: float) -> tuple[float, float]:
    """Draw (cosine, sine) of a random angle around zero. tan_half: tangent of half the largest angle."""
    half = draw_uniform(rng, -tan_half, tan_half)
    return (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)


def make_grid(height: int, width: int) -> tuple[Array, Array]:
    """Return x (1, W) and y (H, 1): pixel centers relative to the center of the window, float32."""
    x = np.arange(width, dtype=np.float32)[None, :] - (width - 1) / 2
    y = np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2
    return x, y


def rotate(x: Array, y: Array, turn: tuple[float, float]) -> tuple[Array, Array]:
    """Return coordinates (H, W) in axes rotated by (cosine, sine)."""
    cosine, sine = turn
    return x * cosine + y * sine, y * cosine - x * sine


# Outlines: signed distance in pixels, negative inside; radii are scaled to similar apparent size ----------------------

def circle(x: Array, y: Array, radius: float) -> Array:
    return np.sqrt(x * x + y * y) - 0.95 * radius


def ring(x: Array, y: Array, radius: float) -> Array:
    return np.abs(np.sqrt(x * x + y * y) - 0.76 * radius) - 0.24 * radius


def square(x: Array, y: Array, radius: float) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.83 * radius


def cross(x: Array, y: Array, radius: float) -> Array:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - radius, np.minimum(x, y) - 0.33 * radius)


OUTLINES: dict[str, Outline] = {'circle': circle, 'square': square, 'ring': ring, 'cross': cross}
REACH = 1.2  # maximum extent of an outline from its center, in radii


# Textures: fields in [0, 1] of shape (H, W) that blend two colors ---------------------------------------------------

def draw_plain(x: Array, y: Array, period: float, rng: np.random.Generator) -> Array:
    return np.zeros((y.size, x.size), np.float32)


def draw_stripes(x: Array, y: Array, period: float, rng: np.random.Generator) -> Array:
    u, _ = rotate(x, y, draw_direction(rng))
    return 0.5 + 0.5 * _compute_wave(u, period)


def draw_checker(x: Array, y: Array, period: float, rng: np.random.Generator) -> Array:
    u, v = rotate(x, y, draw_direction(rng))
    return 0.5 + 0.5 * _compute_wave(u, 1.5 * period) * _compute_wave(v, 1.5 * period)


def draw_dots(x: Array, y: Array, period: float, rng: np.random.Generator) -> Array:
    u, v = rotate(x, y, draw_direction(rng))
    u, v = u / period, v / period
    u, v = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    return np.clip(0.5 + (0.32 - np.sqrt(u * u + v * v)) * period, 0, 1)


def draw_noise(x: Array, y: Array, period: float, rng: np.random.Generator) -> Array:
    """Return smooth value noise of two octaves."""
    field = (2 / 3) * _draw_octave(x, y, 2 * period, rng) + (1 / 3) * _draw_octave(x, y, period, rng)
    return np.clip(0.5 + 1.8 * (field - 0.5), 0, 1)


def draw_gradient(x: Array, y: Array, period: float, rng: np.random.Generator) -> Array:
    u, _ = rotate(x, y, draw_direction(rng))
    low, high = u.min(), u.max()
    return (u - low) / (high - low)


TEXTURES: dict[str, Texture] = {
    'plain': draw_plain, 'stripes': draw_stripes, 'checker': draw_checker, 'dots': draw_dots, 'noise': draw_noise,
    'gradient': draw_gradient}


def _compute_wave(u: Array, period: float) -> Array:
    """Return a square wave in [-1, 1] with edges one pixel wide."""
    u = u / period
    return np.clip((np.abs(u - np.floor(u) - 0.5) * 4 - 1) * (period / 2), -1, 1)


def _draw_octave(x: Array, y: Array, cell: float, rng: np.random.Generator) -> Array:
    """Return random lattice values, one per cell, interpolated by smoothstep along each axis."""
    row, across = (y - y[0, 0]) / cell, (x - x[0, 0]) / cell
    top, left = np.floor(row).astype(int)[:, 0], np.floor(across).astype(int)[0]
    lattice = rng.random((top[-1] + 2, left[-1] + 2)).astype(np.float32)
    down, right = _smooth(row - np.floor(row)), _smooth(across - np.floor(across))
    rows = lattice[top] + (lattice[top + 1] - lattice[top]) * down
    return rows[:, left] + (rows[:, left + 1] - rows[:, left]) * right


def _smooth(t: Array) -> Array:
    return t * t * (3 - 2 * t)


# Colors: RGB in [0, 1] ----------------------------------------------------------------------------------------------

def draw_color(rng: np.random.Generator) -> Color:
    """Draw a random color: any hue, from grayish to vivid, from dark to light."""
    hue, saturation, value = draw_uniform(rng, 0, 6), draw_uniform(rng, 0.15, 0.9), draw_uniform(rng, 0.2, 1.0)
    parts = ((n + hue) % 6 for n in (5, 3, 1))  # branchless HSV to RGB: Wikipedia, "HSL and HSV"
    red, green, blue = (value - value * saturation * max(0.0, min(k, 4 - k, 1.0)) for k in parts)
    return red, green, blue


def draw_near_color(base: Color, rng: np.random.Generator, low: float, high: float) -> Color:
    """Draw a color at a distance in [low, high) from `base`, clipped to the RGB cube."""
    other, length = draw_color(rng), draw_uniform(rng, low, high)
    scale = length / max(compute_distance(base, other), 1e-3)
    red, green, blue = (min(max(b + (o - b) * scale, 0.0), 1.0) for b, o in zip(base, other))
    return red, green, blue


def compute_distance(first: Color, second: Color) -> float:
    """Return the Euclidean distance in the RGB cube, 0 to sqrt(3)."""
    red, green, blue = (a - b for a, b in zip(first, second))
    return math.sqrt(red * red + green * green + blue * blue)  # not sum(): Python 3.12 rounds it differently


def draw_distant_color(others: Sequence[Color], rng: np.random.Generator, least: float) -> Color:
    """Draw a color at a distance of at least `least` from all others, or the farthest of forty draws."""
    best, reached = draw_color(rng), -1.0
    for _ in range(40):
        candidate = draw_color(rng)
        gap = min(compute_distance(candidate, other) for other in others)
        if gap > reached:
            best, reached = candidate, gap
        if reached >= least:
            break
    return best


def mix_colors(field: Array, first: Color, second: Color) -> Array:
    """Blend two colors by a field (H, W) in [0, 1]: `first` at 0, `second` at 1. Returns (H, W, 3)."""
    low, high = np.array(first, np.float32), np.array(second, np.float32)
    return low + (high - low) * field[..., None]
