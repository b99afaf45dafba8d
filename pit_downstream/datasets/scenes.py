"""Images of the bundled dataset: textured shapes on textured backgrounds, determined by (seed, split, index)."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pit_downstream.datasets.drawing import (
    OUTLINES, REACH, TEXTURES, Array, Color, draw_distant_color, mix_colors, draw_direction, compute_distance,
    make_grid, draw_near_color, draw_noise, draw_tilt, rotate, draw_uniform)
from pit_downstream.utils.errors import InputError

CLASSES: tuple[str, ...] = tuple(OUTLINES)
STREAMS = {'train': 0, 'val': 1}
SIZES = (20.0, 52.0)   # pixels: twice the radius
OBJECTS = (3, 7)       # per scene
MIN_VISIBLE = 0.5      # fraction of the full outline, including parts outside the image
MIN_PIXELS = 24
TRIES = 30             # positions tried per object
TILT = 0.105           # tangent of half the largest rotation: objects are upright within 12 degrees
SHADOW = (2, 3)        # offset in pixels, right and down


@dataclass(frozen=True, eq=False)
class Scene:
    """Detection image.

    image: uint8 (H, W, 3), RGB. masks: bool (n, H, W), visible parts, disjoint. labels: int64 (n,) into CLASSES.
    """
    image: Array
    masks: Array
    labels: Array


@dataclass(frozen=True, eq=False)
class Cutout:
    """Object in a square window around its center, without a position in the image.

    colors: float32 (S, S, 3). cover: opacity, float32 (S, S) in [0, 1], soft at the edge. mask: bool (S, S).
    shade: strength of the shadow, float32 (S, S) in [0, 1]. radius: in pixels.
    """
    colors: Array
    cover: Array
    mask: Array
    shade: Array
    radius: float


def draw_scene(seed: int, split: str, index: int, *, size: int = 128, contrast: float = 1.0) -> Scene:
    """Draw the detection image `index` of a split: 3 to 7 objects, later objects over earlier ones.

    size: height and width in pixels, at least 96. contrast: in (0, 1], scales every value's distance to mid-gray.
    The same arguments give the same bits in any order, process or machine.
    """
    if size < 96:
        raise InputError(f'a scene is at least 96 pixels wide, got {size}; raise size')
    check_contrast(contrast)
    rng = _make_generator(seed, split, index, first=0)
    canvas, ground = _draw_background(size, rng, two_textures=rng.random() < 0.4)
    owner = np.full((size, size), -1, np.int64)
    labels: list[int] = []
    areas: list[int] = []
    places: list[tuple[int, int, float]] = []
    wanted = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    crowded = rng.random() < 0.4
    for _ in range(10 * wanted):
        if len(labels) == wanted:
            break
        label, part = int(rng.integers(len(CLASSES))), rng.random()
        radius = (SIZES[0] + (SIZES[1] - SIZES[0]) * part * math.sqrt(math.sqrt(part))) / 2
        cutout = _draw_cutout(label, radius, ground, rng)
        place = _find_position(cutout, owner, areas, places if crowded else [], rng)
        if place is None:
            continue
        _put(canvas, cutout, place)
        region, window = _compute_overlap(len(cutout.mask), place, size)
        owner[region][cutout.mask[window]] = len(labels)
        labels.append(label)
        areas.append(int(cutout.mask.sum()))
        places.append((*place, radius))
    masks = owner[None] == np.arange(len(labels))[:, None, None]
    return Scene(_convert_canvas(canvas, contrast, rng), masks, np.array(labels, np.int64))


def draw_object(seed: int, split: str, index: int, *, size: int = 64, contrast: float = 1.0) -> tuple[Array, int]:
    """Draw the classification image `index` of a split: one dominant shape on a background of two textures.

    size: at least 32. contrast: see `draw_scene`. Returns the image, uint8 (size, size, 3), RGB, and its label. The
    label is `index` modulo the number of classes, so any range of indices is balanced.
    """
    if size < 32:
        raise InputError(f'an object image is at least 32 pixels wide, got {size}; raise size')
    check_contrast(contrast)
    rng = _make_generator(seed, split, index, first=2)
    canvas, ground = _draw_background(size, rng, two_textures=True)
    label = index % len(CLASSES)
    radius = draw_uniform(rng, 0.17, 0.42) * size
    cutout = _draw_cutout(label, radius, ground, rng)
    slack = 0.55 * size - radius
    row, column = (int(size / 2 + draw_uniform(rng, -slack, slack)) for _ in 'yx')
    _put(canvas, cutout, (row, column))
    return _convert_canvas(canvas, contrast, rng), label


def check_contrast(contrast: float) -> None:
    if not 0 < contrast <= 1:
        raise InputError(f'contrast is in (0, 1], got {contrast}; 1 is the images as they are drawn')


def _make_generator(seed: int, split: str, index: int, *, first: int) -> np.random.Generator:
    """Return a separate generator per image. first: separates the streams of scenes and object images."""
    if split not in STREAMS:
        raise InputError(f'split is one of {", ".join(STREAMS)}, got {split!r}')
    if seed < 0 or index < 0:
        raise InputError(f'seed and index are 0 or more, got {seed} and {index}')
    return np.random.default_rng([seed, first + STREAMS[split], index])


def _draw_background(size: int, rng: np.random.Generator, *, two_textures: bool) -> tuple[Array, list[Color]]:
    """Draw the background. Returns the canvas, float32 (size, size, 3), and its colors."""
    x, y = make_grid(size, size)
    base = draw_distant_color([(1.0, 1.0, 1.0)], rng, 0.4)
    colors = [base, draw_near_color(base, rng, 0.05, 0.2)]
    canvas = mix_colors(_draw_texture(x, y, draw_uniform(rng, 4, 10), rng), *colors)
    if two_textures:
        patch = draw_near_color(base, rng, 0.1, 0.25)
        colors += [patch, draw_near_color(patch, rng, 0.05, 0.15)]
        other = mix_colors(_draw_texture(x, y, draw_uniform(rng, 4, 10), rng), *colors[2:])
        where = np.clip((draw_noise(x, y, draw_uniform(rng, 0.2, 0.4) * size, rng) - 0.5) * 20, 0, 1)[..., None]
        canvas = canvas + (other - canvas) * where
    return canvas, colors


def _draw_texture(x: Array, y: Array, period: float, rng: np.random.Generator) -> Array:
    names = tuple(TEXTURES)
    return TEXTURES[names[int(rng.integers(len(names)))]](x, y, period, rng)


def _draw_cutout(label: int, radius: float, ground: list[Color], rng: np.random.Generator) -> Cutout:
    """Draw an object with random rotation, stretch and texture, in colors that contrast with the background."""
    reach = int(REACH * 1.15 * radius) + 4
    x, y = make_grid(2 * reach + 1, 2 * reach + 1)
    u, v = rotate(x - draw_uniform(rng, -0.5, 0.5), y - draw_uniform(rng, -0.5, 0.5), draw_tilt(rng, TILT))
    stretch = draw_uniform(rng, 0.92, 1.08)
    depth = OUTLINES[CLASSES[label]](u * stretch, v / stretch, radius)
    contrast = draw_uniform(rng, 0.55, 0.85) if rng.random() < 0.92 else 0.35
    first = draw_distant_color(ground, rng, contrast)
    second = draw_near_color(first, rng, 0.1, 0.3)
    if min(compute_distance(second, other) for other in ground) < 0.75 * contrast:
        second = draw_near_color(first, rng, 0.05, 0.2)
    colors = mix_colors(_draw_texture(x, y, draw_uniform(rng, 4, 6 + 0.2 * radius), rng), first, second)
    rim, tone = _draw_rim(ground, rng)
    colors = colors + (tone - colors) * (rim * np.clip(depth + 3.0, 0, 1))[..., None]
    shade = draw_uniform(rng, 0.0, 0.5) * np.clip(0.6 - depth / 5, 0, 1)
    return Cutout(colors, np.clip(0.5 - depth, 0, 1), depth < 0, shade, radius)


def _draw_rim(ground: list[Color], rng: np.random.Generator) -> tuple[float, float]:
    """Return strength and gray level of the inner outline: black on light backgrounds, white on dark ones."""
    red, green, blue = ground[0]
    strength = draw_uniform(rng, 0.6, 1.0)
    return strength, 0.0 if red + green + blue > 1.35 else 1.0


def _compute_overlap(window: int, place: tuple[int, int], size: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the overlap of the image and a window centered at `place` (row, column), as slices of both."""
    starts = [middle - window // 2 for middle in place]
    inside = [(max(start, 0), min(start + window, size)) for start in starts]
    region = tuple(slice(low, high) for low, high in inside)
    part = tuple(slice(low - start, high - start) for (low, high), start in zip(inside, starts))
    return region, part


def _find_position(cutout: Cutout, owner: Array, areas: list[int], neighbours: list[tuple[int, int, float]],
                rng: np.random.Generator) -> tuple[int, int] | None:
    """Return a (row, column) at which this and all earlier objects are sufficiently visible, or None."""
    size, area = len(owner), int(cutout.mask.sum())
    before = np.bincount(owner.ravel() + 1, minlength=len(areas) + 1)[1:]
    for _ in range(TRIES):
        place = _propose_position(cutout.radius, size, neighbours, rng)
        region, window = _compute_overlap(len(cutout.mask), place, size)
        covered = owner[region][cutout.mask[window]]
        after = before - np.bincount(covered + 1, minlength=len(areas) + 1)[1:]
        if covered.size >= max(0.7 * area, MIN_PIXELS) and all(
                left >= max(MIN_VISIBLE * whole, MIN_PIXELS) for left, whole in zip(after, areas)):
            return place
    return None


def _propose_position(radius: float, size: int, neighbours: list[tuple[int, int, float]],
             rng: np.random.Generator) -> tuple[int, int]:
    """Propose a random position in the image or, with neighbors, half of the time at the edge of one of them."""
    if neighbours and rng.random() < 0.5:
        row, column, other = neighbours[int(rng.integers(len(neighbours)))]
        down, right = draw_direction(rng)
        reach = (radius + other) * draw_uniform(rng, 0.6, 1.0)
        place = int(row + reach * down), int(column + reach * right)
    else:
        place = int(rng.integers(size)), int(rng.integers(size))
    return min(max(place[0], 0), size - 1), min(max(place[1], 0), size - 1)


def _put(canvas: Array, cutout: Cutout, place: tuple[int, int]) -> None:
    """Draw the shadow, then the object, on the canvas."""
    size, window = len(canvas), len(cutout.mask)
    for shift in (SHADOW, (0, 0)):
        region, part = _compute_overlap(window, (place[0] + shift[1], place[1] + shift[0]), size)
        if shift == SHADOW:
            canvas[region] *= 1 - cutout.shade[part][..., None]
        else:
            canvas[region] += (cutout.colors[part] - canvas[region]) * cutout.cover[part][..., None]


def _convert_canvas(canvas: Array, contrast: float, rng: np.random.Generator) -> Array:
    """Apply a linear light gradient and the contrast, and convert to uint8."""
    x, y = make_grid(*canvas.shape[:2])
    u, _ = rotate(x, y, draw_direction(rng))
    light = 1 - draw_uniform(rng, 0.0, 0.25) * (0.5 + u / (1.5 * len(canvas)))
    image = np.clip(canvas * light[..., None], 0, 1)
    if contrast != 1:
        image = 0.5 + contrast * (image - 0.5)
    return (image * 255 + 0.5).astype(np.uint8)
