"""A report of one of each kind, made once."""

import pytest

from pit_downstream.report import exports, page, sections
from tests.report import stores
from tests.report.html_tables import Page


@pytest.fixture(scope='session')
def kept(tmp_path_factory):
    """A folder with everything in it."""
    return stores.write_everything(tmp_path_factory.mktemp('report'))


@pytest.fixture(scope='session')
def report(kept):
    return sections.make_report([kept])


@pytest.fixture(scope='session')
def html(report):
    return page.render_page(report, made='Made by hand.')


@pytest.fixture(scope='session')
def told(html):
    """What the page says."""
    return Page(html)


@pytest.fixture(scope='session')
def numbers(report):
    """What report.json says of the sections."""
    import json
    return json.loads(exports.format_json(report))['sections']
