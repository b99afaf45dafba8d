"""Figures of results: the numbers of the lines and bars, and texts inside the frame."""

import pytest

pytest.importorskip('matplotlib')

from matplotlib.backends.backend_agg import FigureCanvasAgg

from pit_downstream.benchmarks.imagenet_c import ALEXNET, ImageNetC, make_condition
from pit_downstream.benchmarks.shifts import Shifts
from pit_downstream.results.intervals import compute_wilson_interval
from pit_downstream.results.results import Results
from pit_downstream.utils.errors import InputError
from tests.results.builders import make_results, make_table, without


def alexnet(**options):
    errors = {'clean': .4348} | {str(make_condition(name, severity)): error for name, row in ALEXNET.items()
                                 for severity, error in enumerate(row, 1)}
    return make_results(ImageNetC(), errors, **options)


def get_lines(axes):
    """Return the values of every line with its label."""
    return {container.get_label(): container.lines[0].get_ydata().tolist() for container in axes.containers}


def test_lines_have_the_numbers_and_intervals_of_the_layout():
    figure = alexnet(count=100).plot()
    axes, = figure.axes
    lines = get_lines(axes)
    assert len(lines) == 15 and lines['fog'] == pytest.approx([100 * error for error in ALEXNET['fog']])
    clean, = (line for line in axes.lines if line.get_label() == 'clean')
    assert clean.get_ydata() == pytest.approx([43.48, 43.48])
    assert [text.get_text() for text in axes.get_xticklabels()] == ['1', '2', '3', '4', '5']
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('severity', 'top1_error in percent')
    fog = next(container for container in axes.containers if container.get_label() == 'fog')
    ends = fog.lines[2][0].get_segments()[0][:, 1]
    assert ends == pytest.approx([100 * end for end in compute_wilson_interval(ALEXNET['fog'][0], 100)])


def test_missing_number_is_a_gap_in_the_line():
    lines = get_lines(without(alexnet(), 'fog(severity=3)').plot().axes[0])
    assert [value == value for value in lines['fog']] == [True, True, False, True, True]


def test_bars_have_the_numbers_of_every_dataset():
    tables = {name: make_table({'clean': error}, dataset=name) for name, error in (
        ('imagenet', .2), ('imagenet_a', .8), ('imagenet_sketch', .6))}
    axes, = Results(Shifts(), tables).plot().axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20, 80, 60])
    assert [text.get_text() for text in axes.get_yticklabels()] == ['imagenet', 'imagenet a', 'imagenet sketch']
    assert axes.yaxis_inverted() and axes.get_xlabel() == 'top1_error in percent'


def test_texts_are_inside_the_frame_and_outside_the_axes():
    """Fifteen rows, and a name of 90 characters."""
    figure = alexnet(model='pit_s_distilled_' * 6, dataset=f'folder(root={"/data/set" * 8!r})').plot()
    FigureCanvasAgg(figure).draw()
    axes, = figure.axes
    legend, = figure.legends
    frame, box = figure.bbox, legend.get_window_extent()
    title = figure._suptitle.get_window_extent()
    assert not title.overlaps(axes.get_window_extent())
    for extent in (box, title, axes.xaxis.label.get_window_extent()):
        assert frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and frame.y0 <= extent.y0 and extent.y1 <= frame.y1
    assert not box.overlaps(axes.get_window_extent())


def test_results_without_a_number_are_not_drawn():
    with pytest.raises(InputError, match='no top1_error of m to draw'):
        make_results(ImageNetC(), {}).plot()
