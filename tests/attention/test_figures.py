"""What figures show, before it becomes pixels; and that they are drawn without a display or global state."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pit_downstream.benchmarks import attention
from pit_downstream.evaluation import attention_figures as figures

PLAIN = {'softmax_similarity@block1:block2': 0.5, 'softmax_similarity@block1:block3': 0.25,
         'softmax_similarity@block2:block3': 0.75, 'reattention_similarity@block2:block3': -0.5,
         **{f'softmax_entropy@block{i}': float(i) for i in (1, 2, 3)}}
STAGES = {'softmax_similarity@stage1.block1:stage1.block2': 0.5, 'softmax_similarity@stage2.block1:stage2.block2': 0.75,
          **{f'softmax_entropy@stage{s}.block{b}': 1.0 for s in (1, 2) for b in (1, 2)}}


def test_table_of_a_plain_transformer():
    places, table = figures.build_similarity_table(PLAIN, 'softmax')
    assert places == ['block1', 'block2', 'block3']
    assert table.tolist() == [[1, 0.5, 0.25], [0.5, 1, 0.75], [0.25, 0.75, 1]]
    assert figures.build_similarity_table(PLAIN, 'reattention')[0] == ['block2', 'block3']


def test_table_is_empty_between_stages():
    places, table = figures.build_similarity_table(STAGES, 'softmax')
    assert places == ['stage1.block1', 'stage1.block2', 'stage2.block1', 'stage2.block2']
    assert table[:2, 2:].isnan().all() and table[2:, :2].isnan().all()
    assert table[0, 1] == 0.5 and table[3, 2] == 0.75


def test_blocks_are_ordered_by_number():
    pairs = {f'softmax_similarity@block{i}:block{j}': 0.0 for i in range(10, 13) for j in range(i + 1, 13)}
    pairs |= {f'softmax_similarity@block{i}:block{j}': 0.0 for i in range(1, 10) for j in range(i + 1, 13)}
    assert figures.build_similarity_table(pairs, 'softmax')[0] == [f'block{i}' for i in range(1, 13)]


def test_neighbours():
    assert attention.get_neighbor_similarity(PLAIN, 'softmax') == {'block2': 0.5, 'block3': 0.75}
    assert attention.get_neighbor_similarity(PLAIN, 'reattention') == {'block3': -0.5}
    assert attention.get_neighbor_similarity(STAGES, 'softmax') == {'stage1.block2': 0.5, 'stage2.block2': 0.75}


def test_spread():
    places = [f'block{i}' for i in range(1, 17)]
    assert figures.select_evenly(places, 4) == ['block1', 'block6', 'block11', 'block16']
    assert figures.select_evenly(places[:2], 6) == ['block1', 'block2']
    assert figures.select_evenly(places[:1], 6) == ['block1'] and figures.select_evenly([], 6) == []


def test_attention_over_patches():
    """The row of the class token without its own column; without one, the mean of all rows; mean over heads."""
    maps = torch.rand(2, 3, 7, 7)
    ours = figures.compute_patch_attention(maps, (2, 3))
    torch.testing.assert_close(ours, maps[:, :, 0, 1:].mean(1).reshape(2, 2, 3))
    ours = figures.compute_patch_attention(maps, (1, 7))
    torch.testing.assert_close(ours, maps.mean((1, 2)).reshape(2, 1, 7))


@pytest.mark.parametrize('models', [{'a': PLAIN}, {'a': PLAIN, 'b': STAGES}])
def test_figures_are_written(models, tmp_path):
    figures.draw_similarity(models, tmp_path / 'similarity.png', caption='set')
    figures.draw_profile(models, tmp_path / 'profile.png')
    for name in ('similarity.png', 'profile.png'):
        assert len(Image.open(tmp_path / name).convert('RGB').getcolors(2 ** 24)) > 10


def test_overlays_are_where_they_belong(tmp_path):
    """One high corner, above right, on a gray image: yellow there, in the second panel, and nowhere else."""
    attention = torch.zeros(1, 4, 4)
    attention[0, 0, -1] = 1
    figures.draw_overlays(torch.full((1, 3, 32, 32), 0.5), {'block1': attention}, tmp_path / 'a.png')
    red, green, blue = np.asarray(Image.open(tmp_path / 'a.png').convert('RGB')).astype(int).transpose(2, 0, 1)
    dark_rows, dark_columns = np.nonzero(blue < 120)  # the low part of the map; the other panel is gray
    rows, columns = np.nonzero((green > 150) & (red - blue > 30))
    assert len(rows) > 20
    assert rows.mean() < dark_rows.mean() - 10 and columns.mean() > dark_columns.mean() + 10


def test_matplotlib_is_imported_late():
    code = ('import sys; import pit_downstream.evaluation.attention_figures; '
            'import pit_downstream.evaluation.attention_analysis; assert "matplotlib" not in sys.modules')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(ImportError, match=r"matplotlib.*pip install 'pit_downstream\[report\]'"):
        figures.draw_similarity({'a': PLAIN}, tmp_path / 'a.png')
