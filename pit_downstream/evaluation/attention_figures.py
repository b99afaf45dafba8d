"""Figures of attention collapse, from the values of metrics/attention.py, named 'metric@layer'.

matplotlib is imported when a figure is drawn. Its global state is not used, so no display is needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pit_downstream.benchmarks.attention import (
    KINDS,
    PROFILE,
    format_layer,
    get_profile,
    make_line,
    parse_layer,
    select_metric,
)
from pit_downstream.results.plotting import wrap_text
from pit_downstream.utils.extras import require_extra
from pit_downstream.utils.path_checks import replace_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = Mapping[str, float]  # 'metric@layer' -> number

TITLE = 34  # characters of a line above a heat map
LEGEND = 140  # characters of a line below the profiles


def build_similarity_table(values: Values, kind: str) -> tuple[list[str], Tensor]:
    """Return the layers and the cross-layer similarity (L, L) of one kind, nan between blocks of different stages."""
    pairs = select_metric(values, f'{kind}_similarity')
    layers = sorted({layer for pair in pairs for layer in pair.split(':')}, key=parse_layer)
    table = torch.full((len(layers), len(layers)), torch.nan, dtype=torch.float64).fill_diagonal_(1)
    for pair, value in pairs.items():
        i, j = (layers.index(layer) for layer in pair.split(':'))
        table[i, j] = table[j, i] = value
    return layers, table


def draw_similarity(models: Mapping[str, Values], path: Path, *, caption: str = '') -> None:
    """Draw heat maps of the similarity of all pairs of blocks: one panel per model and kind, one shared scale."""
    tables = {f'{name}, {label}': build_similarity_table(values, kind)
              for name, values in models.items() for kind, label in KINDS.items()
              if select_metric(values, f'{kind}_similarity')}
    low = -1 if any(table.nan_to_num(nan=1).min() < 0 for _, table in tables.values()) else 0
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    lines = max(wrap_text(title, TITLE).count('\n') for title in tables)
    figure = _create_figure(3.1 * columns + 0.8, (3.3 + 0.16 * lines) * rows + 0.4, caption)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels[len(tables):]:
        panel.set_axis_off()
    for panel, (title, (layers, table)) in zip(panels, tables.items()):
        image = panel.imshow(table.numpy(), vmin=low, vmax=1, cmap='magma')
        panel.set_title(wrap_text(title, TITLE), fontsize=9)
        _label_blocks(panel, layers)
    figure.colorbar(image, ax=list(panels), shrink=0.8, label='cross-layer similarity')
    with replace_atomically(path) as new:
        figure.savefig(new, dpi=110)


def draw_profile(models: Mapping[str, Values], path: Path, *, caption: str = '') -> None:
    """Plot every measure by depth: one panel per measure, one color per model, dashed lines for Re-attention maps."""
    figure = _create_figure(13, 6.4, caption)
    panels = figure.subplots(2, 4).flat
    panels[-1].set_axis_off()
    for panel, (metric, label) in zip(panels, PROFILE.items()):
        for color, values in enumerate(models.values()):
            for kind in KINDS if '{kind}' in metric else ('softmax',):
                line = make_line(values, get_profile(values, metric, kind))
                panel.plot([depth for depth, _ in line], [value for _, value in line], color=f'C{color}', marker='.',
                           linestyle='--' if kind == 'reattention' else '-')
        panel.set_title(label, fontsize=9)
        panel.set_xlabel('block', fontsize=8)
    _draw_legend(figure, list(models), any(select_metric(values, 'reattention_rank') for values in models.values()))
    with replace_atomically(path) as new:
        figure.savefig(new, dpi=110)


def draw_overlays(images: Tensor, attention: Mapping[str, Tensor], path: Path, *, caption: str = '') -> None:
    """Draw sample images, each followed by its attention maps as overlays.

    images: (n, 3, H, W) in [0, 1]. attention: layer -> (n, h, w). Each map is scaled from its minimum to its maximum.
    """
    figure = _create_figure(1.6 * (len(attention) + 1), 1.6 * len(images) + 0.5, caption)
    panels = figure.subplots(len(images), len(attention) + 1, squeeze=False)
    for row, image in zip(range(len(images)), images.permute(0, 2, 3, 1).cpu().numpy()):
        for panel in panels[row]:
            panel.imshow(image)
            panel.set_axis_off()
        extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
        for panel, (layer, maps) in zip(panels[row, 1:], attention.items()):
            panel.imshow(maps[row].float().cpu().numpy(), cmap='inferno', alpha=0.6, extent=extent,
                         interpolation='bilinear')
            if row == 0:
                panel.set_title(layer, fontsize=9)
    with replace_atomically(path) as new:
        figure.savefig(new, dpi=110)


def compute_patch_attention(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the attention of the class token to the patches, averaged over heads.

    Without a class token, the mean over all queries is used.
    maps: (B, heads, N, N), the last h * w tokens are the patches. Returns (B, h, w).
    """
    patches = grid[0] * grid[1]
    rows = maps[:, :, 0] if maps.shape[-1] > patches else maps.mean(2)
    return rows.mean(1)[:, -patches:].unflatten(1, grid)


def select_evenly(layers: Sequence[str], count: int) -> list[str]:
    """Return up to `count` evenly spaced layers, including the first and the last."""
    count = min(count, len(layers))
    if count < 2:
        return list(layers[:count])
    return [layers[round(i * (len(layers) - 1) / (count - 1))] for i in range(count)]


def _create_figure(width: float, height: float, caption: str) -> 'Figure':
    require_extra('report')
    from matplotlib.figure import Figure
    caption = wrap_text(caption, max(16, int(9 * width)))
    figure = Figure((width, height + 0.2 * caption.count('\n')), layout='constrained')
    if caption:
        figure.suptitle(caption, fontsize=11)
    return figure


def _draw_legend(figure: 'Figure', names: Sequence[str], has_reattention: bool) -> None:
    """Draw a legend below the panels, one line per model if names are long."""
    from matplotlib.lines import Line2D
    lines = [Line2D([], [], color=f'C{i}', label=wrap_text(name, LEGEND)) for i, name in enumerate(names)]
    if has_reattention:
        lines.append(Line2D([], [], color='gray', linestyle='--', label='Re-attention maps'))
    longest = max(len(str(line.get_label())) for line in lines)
    columns = max(1, min(len(lines), LEGEND // (longest + 6)))
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(lines) // columns))
    figure.legend(handles=lines, loc='outside lower center', ncols=columns, fontsize=10)


def _label_blocks(panel, layers: Sequence[str]) -> None:
    step = -(-len(layers) // 8)
    panel.set_xticks(range(0, len(layers), step), [format_layer(layer) for layer in layers[::step]], fontsize=8)
    panel.set_yticks(range(0, len(layers), step), [format_layer(layer) for layer in layers[::step]], fontsize=8)
    panel.set_xlabel('block', fontsize=8)
