"""A headless Chromium, driven by its DevTools protocol through a pipe: nothing to install but the browser.

python -m tests.report.browser report.html docs/report.png [--width 1280] [--height 1600] [--dark]    a screenshot
"""

import argparse
import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
SECONDS = 240  # until an answer must be there; machines are shared


def found() -> str | None:
    """Where a browser lies."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a browser. problems: what it complained of on the console, in the order in which it did."""

    def __init__(self):
        self.problems, self._ids, self._waiting = [], itertools.count(1), b''
        self._home = tempfile.TemporaryDirectory()
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._in, self._out = ours_in, ours_out

        def connect():  # the browser reads commands from 3 and answers on 4
            inward, outward = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(inward, 3)
            os.dup2(outward, 4)
        self._process = subprocess.Popen(
            [found(), '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--hide-scrollbars',
             '--remote-debugging-pipe', f'--user-data-dir={self._home.name}'], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=connect)
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.ask('Target.createTarget', url='about:blank')['targetId']
        self.session = self.ask('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.ask(f'{domain}.enable')

    session = None

    def ask(self, method: str, **params) -> dict:
        """The result of a command; what happens before it is kept."""
        number = next(self._ids)
        message = {'id': number, 'method': method, 'params': params}
        message |= {'sessionId': self.session} if self.session else {}
        os.write(self._out, json.dumps(message).encode() + b'\0')
        while True:
            got = self._read()
            if got.get('id') == number:
                if 'error' in got:
                    raise RuntimeError(f'{method}: {got["error"]}')
                return got['result']
            self._note(got)

    def show(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file and wait until it is drawn."""
        self.ask('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 500)
        self.ask('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme',
                                                          'value': 'dark' if dark else 'light'}])
        self.ask('Page.navigate', url=path.resolve().as_uri())
        end = time.monotonic() + SECONDS
        while self.run('document.readyState') != 'complete':
            assert time.monotonic() < end, 'the page was not drawn'
            time.sleep(.1)

    def run(self, script: str):
        """The value of an expression on the page."""
        got = self.ask('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in got:
            raise RuntimeError(f'{script}: {got["exceptionDetails"]}')
        return got['result'].get('value')

    def screenshot(self, *, whole: bool = False) -> bytes:
        """PNG of what is seen, or of the whole page."""
        clip = {}
        if whole:
            size = self.ask('Page.getLayoutMetrics')['cssContentSize']
            clip = {'clip': {'x': 0, 'y': 0, 'width': size['width'], 'height': size['height'], 'scale': 1},
                    'captureBeyondViewport': True}
        return base64.b64decode(self.ask('Page.captureScreenshot', format='png', **clip)['data'])

    def pdf(self) -> bytes:
        return base64.b64decode(self.ask('Page.printToPDF', printBackground=True)['data'])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        os.close(self._in)
        os.close(self._out)
        self._home.cleanup()

    def _read(self) -> dict:
        while b'\0' not in self._waiting:
            ready, _, _ = select.select([self._in], [], [], SECONDS)
            assert ready, 'the browser does not answer'
            more = os.read(self._in, 1 << 20)
            assert more, 'the browser has ended'
            self._waiting += more
        message, _, self._waiting = self._waiting.partition(b'\0')
        return json.loads(message)

    def _note(self, event: dict) -> None:
        method, params = event.get('method'), event.get('params', {})
        if method == 'Runtime.exceptionThrown':
            self.problems.append(str(params['exceptionDetails']))
        elif method == 'Runtime.consoleAPICalled' and params['type'] in ('error', 'warning', 'assert'):
            self.problems.append(str(params['args']))
        elif method == 'Log.entryAdded' and params['entry']['level'] in ('error', 'warning'):
            self.problems.append(str(params['entry']))
        elif method == 'Network.requestWillBeSent' and params['request']['url'].startswith(('http', 'ws', 'ftp')):
            self.problems.append(f'asked the network for {params["request"]["url"]}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('page', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--width', type=int, default=1280)
    parser.add_argument('--height', type=int, default=1600)
    parser.add_argument('--dark', action='store_true')
    parser.add_argument('--whole', action='store_true')
    args = parser.parse_args()
    browser = Browser()
    browser.show(args.page, width=args.width, height=args.height, dark=args.dark)
    args.out.write_bytes(browser.screenshot(whole=args.whole))
    print(args.out, *browser.problems, sep='\n')
    browser.close()


if __name__ == '__main__':
    main()
