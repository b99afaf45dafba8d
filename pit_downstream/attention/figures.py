"""Figures of attention collapse, from the values of metrics/attention.py, named 'metric@place'.

matplotlib is imported when a figure is drawn. Its global state is not used, so no display is needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pit_downstream.utils.extras import require_extra
from pit_downstream.utils.path_checks import replace_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = Mapping[str, float]  # 'metric@place' -> number

KINDS = {'softmax': 'softmax', 'reattention': 'Re-attention'}
PROFILE = {  # metric -> axis label; {kind} is a key of KINDS
    '{kind}_similarity': 'similarity to the block before',
    '{kind}_head_similarity': 'similarity among heads',
    '{kind}_rank': 'effective rank of the maps',
    'softmax_entropy': 'attention entropy (nats)',
    'softmax_distance': 'attention distance (patches)',
    'token_similarity': 'similarity among patch tokens',
    'token_rank': 'effective rank of the patch tokens',
}


def block_values(values: Values, metric: str) -> dict[str, float]:
    """Return the values of one metric by place, in block order."""
    named = (name.split('@') for name in values)
    return {place: values[f'{name}@{place}'] for name, place in named if name == metric}


def neighbour_similarity(values: Values, kind: str) -> dict[str, float]:
    """Return the similarity of each block to the previous one, by place. The first block of a stage has none."""
    pairs, found = block_values(values, f'{kind}_similarity'), {}
    for pair, value in pairs.items():
        first, second = pair.split(':')
        if _number(second) == _number(first) + 1:
            found[second] = value
    return found


def similarity_table(values: Values, kind: str) -> tuple[list[str], Tensor]:
    """Return the places and the cross-layer similarity (L, L) of one kind, nan between blocks of different stages."""
    pairs = block_values(values, f'{kind}_similarity')
    places = list(dict.fromkeys(place for pair in pairs for place in pair.split(':')))
    places.sort(key=_order)
    table = torch.full((len(places), len(places)), torch.nan, dtype=torch.float64).fill_diagonal_(1)
    for pair, value in pairs.items():
        i, j = (places.index(place) for place in pair.split(':'))
        table[i, j] = table[j, i] = value
    return places, table


def draw_similarity(models: Mapping[str, Values], path: Path, *, caption: str = '') -> None:
    """Draw heat maps of the similarity of all pairs of blocks: one panel per model and kind, one shared scale."""
    tables = {f'{name}, {label}': similarity_table(values, kind)
              for name, values in models.items() for kind, label in KINDS.items()
              if block_values(values, f'{kind}_similarity')}
    low = -1 if any(table.nan_to_num(nan=1).min() < 0 for _, table in tables.values()) else 0
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure = _figure(3.1 * columns + 0.8, 3.3 * rows + 0.3, caption)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels[len(tables):]:
        panel.set_axis_off()
    for panel, (title, (places, table)) in zip(panels, tables.items()):
        image = panel.imshow(table.numpy(), vmin=low, vmax=1, cmap='magma')
        panel.set_title(title, fontsize=10)
        _label_blocks(panel, places)
    figure.colorbar(image, ax=list(panels), shrink=0.8, label='cross-layer similarity')
    with replace_atomically(path) as new:
        figure.savefig(new, dpi=110)


def draw_profile(models: Mapping[str, Values], path: Path, *, caption: str = '') -> None:
    """Plot every measure by depth: one panel per measure, one color per model, dashed lines for Re-attention maps."""
    figure = _figure(13, 6.4, caption)
    panels = figure.subplots(2, 4).flat
    for panel, (metric, label) in zip(panels, PROFILE.items()):
        for color, values in enumerate(models.values()):
            for kind in KINDS if '{kind}' in metric else ('softmax',):
                _draw_lines(panel, _by_depth(values, metric, kind), f'C{color}', kind)
        panel.set_title(label, fontsize=9)
        panel.set_xlabel('block', fontsize=8)
    _draw_legend(panels[len(PROFILE)], list(models))
    with replace_atomically(path) as new:
        figure.savefig(new, dpi=110)


def draw_overlays(images: Tensor, attention: Mapping[str, Tensor], path: Path, *, caption: str = '') -> None:
    """Draw sample images, each followed by its attention maps as overlays.

    images: (n, 3, H, W) in [0, 1]. attention: place -> (n, h, w). Each map is scaled from its minimum to its maximum.
    """
    figure = _figure(1.6 * (len(attention) + 1), 1.6 * len(images) + 0.5, caption)
    panels = figure.subplots(len(images), len(attention) + 1, squeeze=False)
    for row, image in zip(range(len(images)), images.permute(0, 2, 3, 1).cpu().numpy()):
        for panel in panels[row]:
            panel.imshow(image)
            panel.set_axis_off()
        extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
        for panel, (place, maps) in zip(panels[row, 1:], attention.items()):
            panel.imshow(maps[row].float().cpu().numpy(), cmap='inferno', alpha=0.6, extent=extent,
                         interpolation='bilinear')
            if row == 0:
                panel.set_title(place, fontsize=9)
    with replace_atomically(path) as new:
        figure.savefig(new, dpi=110)


def attention_over_patches(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the attention of the class token to the patches, averaged over heads.

    Without a class token, the mean over all queries is used.
    maps: (B, heads, N, N), the last h * w tokens are the patches. Returns (B, h, w).
    """
    patches = grid[0] * grid[1]
    rows = maps[:, :, 0] if maps.shape[-1] > patches else maps.mean(2)
    return rows.mean(1)[:, -patches:].unflatten(1, grid)


def spread(places: Sequence[str], count: int) -> list[str]:
    """Return up to `count` evenly spaced places, including the first and the last."""
    count = min(count, len(places))
    if count < 2:
        return list(places[:count])
    return [places[round(i * (len(places) - 1) / (count - 1))] for i in range(count)]


def _figure(width: float, height: float, caption: str) -> 'Figure':
    require_extra('report')
    from matplotlib.figure import Figure
    figure = Figure((width, height), layout='constrained')
    if caption:
        figure.suptitle(caption, fontsize=11)
    return figure


def _by_depth(values: Values, metric: str, kind: str) -> dict[str, dict[int, float]]:
    """Return {stage: {block number: value}}. Blocks are numbered from 1 across all stages."""
    depth = {place: i for i, place in enumerate(block_values(values, 'softmax_entropy'), start=1)}
    if metric == '{kind}_similarity':
        found = neighbour_similarity(values, kind)
    else:
        found = block_values(values, metric.format(kind=kind))
    stages: dict[str, dict[int, float]] = {}
    for place, value in found.items():
        stages.setdefault(place.rpartition('.')[0], {})[depth[place]] = value
    return stages


def _draw_lines(panel, stages: Mapping[str, Mapping[int, float]], color: str, kind: str) -> None:
    for line in stages.values():
        panel.plot(list(line), list(line.values()), color=color, marker='.',
                   linestyle='--' if kind == 'reattention' else '-')


def _draw_legend(panel, names: Sequence[str]) -> None:
    panel.set_axis_off()
    for i, name in enumerate(names):
        panel.plot([], [], color=f'C{i}', label=name)
    panel.plot([], [], color='gray', linestyle='--', label="Re-attention's maps")
    panel.legend(loc='center', fontsize=10)


def _label_blocks(panel, places: Sequence[str]) -> None:
    step = -(-len(places) // 8)
    panel.set_xticks(range(0, len(places), step), [_short(place) for place in places[::step]], fontsize=8)
    panel.set_yticks(range(0, len(places), step), [_short(place) for place in places[::step]], fontsize=8)
    panel.set_xlabel('block', fontsize=8)


def _short(place: str) -> str:
    """Return '4' for 'block4', '2.4' for 'stage2.block4'."""
    return '.'.join(str(number) for number in _order(place) if number)


def _order(place: str) -> tuple[int, int]:
    stage, _, block = place.rpartition('.')
    return int(stage.removeprefix('stage') or 0), int(block.removeprefix('block'))


def _number(place: str) -> int:
    return _order(place)[1]
