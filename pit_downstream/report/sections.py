"""Order of the report sections, and construction of the report."""

import difflib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.report import attack_section as attack  # noqa: F401  register sections
from pit_downstream.report import attention_section as collapse  # noqa: F401  register sections
from pit_downstream.report import corruption_section as corruption  # noqa: F401  register sections
from pit_downstream.report import detection_section as detection  # noqa: F401  register sections
from pit_downstream.report import comparison_section as difference  # noqa: F401  register sections
from pit_downstream.report import image_section as gallery  # noqa: F401  register sections
from pit_downstream.report import overview_section as overview  # noqa: F401  register sections
from pit_downstream.report import shift_section as shift  # noqa: F401  register sections
from pit_downstream.report import speed_section as speed  # noqa: F401  register sections
from pit_downstream.report import strength_section as strength  # noqa: F401  register sections
from pit_downstream.report import training_section as training  # noqa: F401  register sections
from pit_downstream.report import transfer_section as transfer  # noqa: F401  register sections
from pit_downstream.report.inputs import Kept, read
from pit_downstream.report.measured import ALEXNET, Measured
from pit_downstream.report.names import model_labels
from pit_downstream.report.parts import Report, Section

ORDER = ('headline', 'differences', 'imagenet_c', 'strengths', 'coco_c', 'attacks', 'transfer', 'detection_attacks',
         'shifts', 'collapse', 'training', 'speed', 'pictures', 'provenance')
TITLE = 'Robustness report'


def make_report(paths: Iterable[str | Path], *, reference: str = ALEXNET, title: str = TITLE,
                apart_from: Iterable[str | Path] = ()) -> Report:
    """Build the report of the files and folders `paths`. reference: the model that CE and differences compare with.

    apart_from: output folders, whose images are figures of an earlier report.

    Raises InputError if there is nothing to report, or for a reference without results.
    """
    return report_of(read(paths, apart_from=apart_from), reference=reference, title=title)


def report_of(kept: Kept, *, reference: str = ALEXNET, title: str = TITLE) -> Report:
    """Build the report of `kept`. Custom sections, registered in SECTIONS, come after those of ORDER."""
    measured = Measured(kept)
    measured = replace(measured, reference=_chosen(measured, reference))
    names = [*ORDER, *(name for name in SECTIONS if name not in ORDER)]
    sections = [SECTIONS[name](measured) for name in names]
    return Report(title, overview.summary_line(measured), tuple(filter(_says_something, sections)),
                  tuple(dict.fromkeys(model_labels(model for model, _, _ in kept.tables).values())))


def _says_something(section: Section) -> bool:
    return bool(section.parts or section.gaps)


def _chosen(measured: Measured, reference: str) -> str:
    """Return the label of the model that `reference` names by label, Spec name or full Spec."""
    if reference == ALEXNET:
        return reference
    found = {one.label for one in measured.ones
             if reference in (one.label, one.table.model, one.table.model.partition('(')[0])}
    if len(found) != 1:
        labels = [ALEXNET, *dict.fromkeys(one.label for one in measured.ones)]
        near = sorted(found) or difflib.get_close_matches(reference, labels, cutoff=.4) or labels
        raise InputError(f'no one model named {reference!r} in these records; did you mean '
                         f'{", ".join(map(repr, near))}?')
    return found.pop()
