"""The page in a real browser: nothing to complain of, every figure to be seen, a phone wide enough, paper too."""

import pytest

from tests.report.browser import Browser, found

pytestmark = pytest.mark.skipif(found() is None, reason='no Chromium on this machine')

OVERFLOW = 'document.scrollingElement.scrollWidth - document.documentElement.clientWidth'
HIDDEN = '''[...document.querySelectorAll('figure')].filter((figure) => {
  const shown = figure.querySelector('svg, img'), box = shown.getBoundingClientRect();
  return box.width < 8 || box.height < 8 || (shown.naturalWidth === 0);
}).map((figure) => figure.id)'''
SORTED = '''(() => {
  const table = document.getElementById('table-ce'), head = table.tHead.rows[0].cells[1];
  head.querySelector('button').click();
  head.querySelector('button').click();
  return [head.getAttribute('aria-sort'), ...[...table.tBodies[0].rows].map((row) => +row.cells[1].dataset.value)];
})()'''


@pytest.mark.timeout(900)
def test_in_a_browser(html, tmp_path):
    path = tmp_path / 'report.html'
    path.write_text(html)
    browser = Browser()
    try:
        browser.show(path)
        assert browser.run('document.querySelectorAll("figure").length') > 15
        assert browser.run(HIDDEN) == []
        assert browser.run(OVERFLOW) == 0
        order, *values = browser.run(SORTED)
        assert order == 'descending' and values == sorted(values, reverse=True)
        light = browser.run('getComputedStyle(document.body).backgroundColor')
        browser.show(path, width=390, height=844, dark=True)
        assert browser.run(OVERFLOW) == 0 and browser.run(HIDDEN) == []
        assert browser.run('getComputedStyle(document.body).backgroundColor') != light
        pdf = browser.pdf()
        assert pdf.startswith(b'%PDF-') and len(pdf) > 20_000
        assert browser.problems == []
    finally:
        browser.close()
