"""Command-line tools, one module each. `tools/*.py` and the console script `pit-downstream` call their `main`.

Flags are in `flags`, the objects built from them in `models` and `conditions`. Parsing imports no library, so that
`--help` is fast.
"""

import warnings

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')  # mmengine imports it; setup.py pins it
