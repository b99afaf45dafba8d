"""Cells and the renderer of every format, against texts written by hand."""

import re

import pytest

from pit_downstream.results.intervals import Difference, Estimate
from pit_downstream.results.tables import (
    Sheet,
    count,
    mark_best,
    missing,
    number,
    points,
    rate,
    render_latex,
    render_markdown,
    render_text,
    words,
)

SHEET = Sheet('top_errors', 'Errors & gaps of pit_s, in percent.', ('100 % | name', 'images', 'error', 'gap'), (
    (words('fog|3'), count(50000), rate(Estimate(.25, .2, .3125)), points(-.0625)),
    (words('snow_5'), count(7), rate(.5), missing())))


def columns_of(text):
    return [re.split(r' {2,}', line.strip()) for line in text.splitlines()]


@pytest.mark.parametrize('cell, text, fraction, interval', [
    (rate(.12346), '12.3', '0.1235', ''), (rate(None), '–', '-', ''), (rate(-.0001), '0.0', '-0.0001', ''),
    (rate(Estimate(.5, .25, .75, 4)), '50.0', '0.5000', '25.0 to 75.0'), (rate(1., (.9, 1.)), '100.0', '1.0000',
                                                                          '90.0 to 100.0'),
    (points(.125), '+12.5', '+0.1250', ''), (points(-.125), '−12.5', '-0.1250', ''), (points(0.), '0.0', '+0.0000', ''),
    (points(Difference(-.1, -.2, .05)), '−10.0', '-0.1000', '−20.0 to +5.0'), (points(.0004), '0.0', '+0.0004', ''),
    (number(12.25), '12.2', '', ''), (number(12345.), '12345', '', ''), (number(.0012345), '0.00123', '', ''),
    (number(None), '–', '-', ''), (count(1234567), '1 234 567', '1234567', ''), (words(None), 'None', '', ''),
])
def test_cells(cell, text, fraction, interval):
    assert (cell.text, cell.fraction, cell.interval) == (text, fraction, interval)


def test_terminal_has_fractions_and_intervals_in_columns():
    assert columns_of(render_text(SHEET)) == [
        ['100 % | name', 'images', 'error', '95 %', 'gap'],
        ['fog|3', '50000', '0.2500', '0.2000 to 0.3125', '-0.0625'],
        ['snow_5', '7', '0.5000', '-']]
    assert not any(line.endswith(' ') for line in render_text(SHEET).splitlines())
    lines = render_text(SHEET).splitlines()
    assert lines[1].index('50000') + 5 == lines[2].index(' 7 ') + 2  # numbers are right-aligned


def test_interval_of_a_difference_has_signs():
    text = render_text(Sheet('x', '', ('gap',), ((points(Difference(.1, -.05, .25)),),)))
    assert columns_of(text) == [['gap', '95 %'], ['+0.1000', '-0.0500 to +0.2500']]


def test_heading_is_above_the_table_in_a_terminal():
    assert render_text(Sheet('x', '', ('a',), ((words('b'),),), heading='of fog')).splitlines() == ['of fog', 'a', 'b']


def test_markdown_escapes_bars_and_aligns_numbers():
    lines = render_markdown(SHEET).splitlines()
    cells = [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in lines[:4]]
    assert cells[0] == [r'100 % \| name', 'images', 'error', 'gap']
    assert [cell[-1] for cell in cells[1]] == ['-', ':', ':', ':'] and cells[1][0].startswith(':')
    assert cells[2:] == [[r'fog\|3', '50 000', '25.0 (20.0 to 31.2)', '−6.2'], ['snow_5', '7', '50.0', '–']]
    assert lines[4:] == ['', 'Errors & gaps of pit_s, in percent.']


def test_latex_is_a_booktabs_table_with_escaped_text():
    text = render_latex(SHEET)
    lines = text.splitlines()
    assert lines[:4] == [r'\begin{table}', r'\centering', r'\caption{Errors \& gaps of pit\_s, in percent.}',
                         r'\label{tab:top-errors}']
    assert lines[4] == r'\begin{tabular}{lrrr}' and lines[-2:] == [r'\end{tabular}', r'\end{table}']
    assert [line for line in lines if 'rule' in line] == [r'\toprule', r'\midrule', r'\bottomrule']
    rows = [[cell.strip() for cell in re.split(r'(?<!\\)&', line.removesuffix(r'\\'))] for line in lines
            if line.endswith(r'\\')]
    assert rows == [[r'100 \% | name', 'images', 'error', 'gap'],
                    ['fog|3', '50 000', '25.0 (20.0 to 31.2)', '$-$6.2'], [r'snow\_5', '7', '50.0', '--']]
    assert text.count('{') == text.count('}') and text.isascii()


def test_best_number_is_bold_in_latex():
    cells = mark_best([rate(.3), rate(.2), missing(), rate(.2)], higher_is_better=False)
    sheet = Sheet('s', 'c', ('a', 'b', 'c', 'd'), (tuple(cells),))
    row = next(line for line in render_latex(sheet).splitlines() if 'textbf' in line)
    assert [cell.strip() for cell in row.removesuffix(r'\\').split('&')] == [
        '30.0', r'\textbf{20.0}', '--', r'\textbf{20.0}']
    assert [cell.value for cell in cells] == [.3, .2, None, .2]
    assert r'\textbf{30.0}' in render_latex(Sheet('s', 'c', ('a', 'b'), (tuple(
        mark_best([rate(.3), rate(.2)], higher_is_better=True)),)))


def test_a_single_number_is_not_the_best():
    assert mark_best([rate(.3), missing()], higher_is_better=True) == [rate(.3), missing()]
