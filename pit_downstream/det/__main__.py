"""Run a tool of mmdet without a compiled mmcv: mmdet imports mmcv.ops before it reads a config's `custom_imports`.

python -m pit_downstream.det SCRIPT [ARGUMENT ...]
"""

import runpy
import sys
from pathlib import Path

if __name__ == '__main__':
    script = sys.argv[1] if len(sys.argv) > 1 else ''
    if not Path(script).is_file():
        sys.stderr.write(f'Script not found: {script!r}. Pass the path of a tool of mmdet.\n')
        sys.exit(2)
    del sys.argv[0]
    runpy.run_path(script, run_name='__main__')
