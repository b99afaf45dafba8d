"""The rows that the scripts of this folder have written, read without torch."""

import json
from pathlib import Path

HERE = Path(__file__).parent
QUICK = HERE.parent / 'work_dirs' / 'bench'  # for --quick and for bundled data: not to be quoted, never committed


def kept_rows(path: Path) -> list[dict]:
    """The rows of a file that keep() or an older script wrote, each with its environment; none without it."""
    if not path.is_file():
        return []
    content = json.loads(path.read_text())
    return [{**row, 'environment': row.get('environment', content['environment'])} for row in content['results']]
