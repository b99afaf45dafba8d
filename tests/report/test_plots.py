"""Every figure keeps its titles, labels and legends inside the frame, for names of any length."""

import io
import itertools

import pytest
from PIL import Image

from pit_downstream.evaluation import attention_figures as figures
from pit_downstream.report import plot_style, plots

NAMES = ('pit_ti(img_size=64, num_classes=4), trained for 300 epochs on the bundled images',
         'deepvit_s(img_size=64,drop_path_rate=0.1,attn_drop_rate=0.05,num_classes=4)')
NUMBERS = {name: index for index, name in enumerate(NAMES)}
LINE = [(0, .9, .8, .95), (4, .5, .4, .6)]
BLOCKS = [str(block) for block in range(1, 13)]
DRAWINGS = {
    'heat_map': lambda: plots.heat_map(NAMES[0], [f'corruption {row}' for row in range(15)], list('12345'), {
        (row, column): (row + column) / 20 for row in range(15) for column in range(5)}, xlabel='severity'),
    'matrix': lambda: plots.heat_map('pgd(steps=10)', NAMES, NAMES, {(0, 0): .1, (1, 0): .3}, xlabel='classified by',
                                     ylabel='computed on'),
    'similarity': lambda: plots.heat_map(NAMES[0], BLOCKS, BLOCKS, {(0, 1): -.5, (1, 2): .8}, shown=False,
                                         xlabel='block', ylabel='block'),
    'bars': lambda: plots.bars('CE', ['fog', NAMES[0]], {name: {0: (50, 40, 60), 1: (90, None, None)}
                                                         for name in NAMES}, NUMBERS, xlabel='CE', line=100),
    'curves': lambda: plots.curves(NAMES[1], dict.fromkeys(NAMES, LINE), NUMBERS, xlabel='epsilon', ylabel='accuracy'),
    'forest': lambda: plots.forest(' - '.join(NAMES), ['mean', NAMES[0]], [(1, 0, 2, True), (2, 1, 3, False)], 1,
                                   xlabel='difference in accuracy, points'),
    'pairs': lambda: plots.pairs(NAMES[0], ['imagenet_a', NAMES[1]], {0: (.1, .5), 1: (None, .7)}, 0,
                                 names=('matching clean images', 'shifted images'), xlabel='top-1 error, %'),
}


@pytest.fixture(autouse=True)
def matplotlib():
    pytest.importorskip('matplotlib')


@pytest.mark.parametrize('name', DRAWINGS)
def test_text_stays_inside_the_frame(name):
    drawing = DRAWINGS[name]()
    assert plot_style.png(drawing)
    box, (width, height) = drawing.get_tightbbox(), drawing.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


@pytest.mark.parametrize('name', DRAWINGS)
def test_labels_do_not_overlap(name):
    drawing = DRAWINGS[name]()
    drawing.draw_without_rendering()
    for axes in drawing.axes:
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [label.get_window_extent() for label in axis.get_ticklabels() if label.get_text()]
            assert not any(box.overlaps(other) for box, other in itertools.combinations(boxes, 2))


def test_more_lines_than_colors_differ_in_their_markers():
    names = [f'attack {index}' for index in range(16)]
    drawing = plots.curves('', dict.fromkeys(names, LINE), {name: index for index, name in enumerate(names)},
                           xlabel='epsilon', ylabel='accuracy')
    assert len({(line.get_color(), line.get_marker()) for line in drawing.axes[0].lines}) == 16


@pytest.mark.parametrize('name', [name for name in DRAWINGS if name in ('heat_map', 'matrix', 'similarity')])
def test_heat_maps_have_a_color_bar(name):
    drawing = DRAWINGS[name]()
    plot_style.png(drawing)
    bar = drawing.axes[1]
    low, high = bar.get_ylim()
    assert (low, high) == ((-1, 1) if name == 'similarity' else (0, 100))


def test_the_worst_case_is_dashed():
    drawing = plots.curves('Linf', {'worst case': LINE, 'pgd(steps=10)': LINE}, {'worst case': 0, 'pgd(steps=10)': 1},
                           xlabel='epsilon', ylabel='accuracy', dashed='worst case')
    assert [line.get_linestyle() for line in drawing.axes[0].lines] == ['--', '-']


@pytest.mark.parametrize('draw', [figures.draw_similarity, figures.draw_profile])
def test_figures_of_several_models_have_an_empty_border(draw, tmp_path):
    """Nothing is cut off: the outermost pixels are white."""
    values = {f'{metric}@block{block}': .1 * block for block in range(1, 5) for metric in (
        'softmax_entropy', 'softmax_rank', 'reattention_rank', 'token_similarity', 'softmax_head_similarity')}
    values |= {f'softmax_similarity@block{first}:block{second}': .5 for first in range(1, 5)
               for second in range(first + 1, 5)}
    draw(dict.fromkeys(NAMES, values), tmp_path / 'a.png', caption=' '.join(NAMES))
    image = Image.open(io.BytesIO((tmp_path / 'a.png').read_bytes())).convert('L')
    right, bottom = image.width - 1, image.height - 1
    for border in ((0, 0, 1, bottom), (right, 0, right + 1, bottom), (0, 0, right, 1), (0, bottom, right, bottom + 1)):
        assert image.crop(border).getextrema() == (255, 255)
