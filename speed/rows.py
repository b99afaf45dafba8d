"""Rows of the result files in this folder, read without torch."""

import json
from pathlib import Path

HERE = Path(__file__).parent
QUICK = HERE.parent / 'work_dirs' / 'bench'  # for --quick and bundled data: not for quotation, never committed


def kept_rows(path: Path) -> list[dict]:
    """Return the rows of a file from keep() or an older script, each with its environment; [] without a file."""
    if not path.is_file():
        return []
    content = json.loads(path.read_text())
    return [{**row, 'environment': row.get('environment', content['environment'])} for row in content['results']]
