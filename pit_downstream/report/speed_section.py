"""Report section on speed and memory: results of the project's benchmarks, with their peers and machines."""

from collections.abc import Mapping

from pit_downstream.report.measured import Measured
from pit_downstream.report.parts import Cell, Gap, Section, Sheet, number, words
from pit_downstream.utils.registry import SECTIONS

COLUMNS = ('benchmark', 'case', 'setting', 'metric', 'ours', 'peer', "the peer's", 'ratio', 'device', 'threads',
           'commit')


@SECTIONS.register('speed')
def speed_section(measured: Measured) -> Section:
    """Build the section with every comparison of costs in the tables of speed results."""
    rows = [row for table in measured.kept.speeds.values() for row in table if row['ratio']]
    caption = ("Medians. Ratio: the peer's time or memory divided by ours; above 1 is a gain. A bound is a part of our "
               'own work. The CSV files have the spread, the number of runs and the date.')
    sheets = (Sheet('speed', caption, COLUMNS, tuple(map(_cells, rows))),) if rows else ()
    lead = 'Measured by the scripts in speed/, both sides in one run. Numbers of different machines do not compare.'
    return Section('speed', 'Speed', lead, sheets, () if sheets else (Gap('no speed', 'make bench'),))


def _cells(row: Mapping[str, str]) -> tuple[Cell, ...]:
    ours, theirs = (Cell(f'{number(float(row[side]), 3).text} {row["unit"]}', float(row[side]))
                    for side in ('ours_median', 'peer_median'))
    peer = f'{row["peer"]} (bound)' if row['bound'] else row['peer']
    return (*(words(row[name]) for name in ('benchmark', 'case', 'setting', 'metric')), ours, words(peer), theirs,
            number(float(row['ratio'])), *(words(row[name]) for name in ('device', 'threads', 'commit')))
