"""Commands that measure what is missing: the recorded command of a run with other flags."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

Flags = dict[str, list[str]]


def parse_flags(argv: Sequence[str]) -> Flags:
    """Return the values of a command by flag. argv: without the program."""
    flags: Flags = {}
    values: list[str] = []
    for word in argv:
        if word.startswith('--'):
            flag, equals, value = word.partition('=')
            values = flags[flag] = [value] if equals else []
        else:
            values.append(word)
    return flags


def get_tool(program: str) -> str:
    """Return the name of a tool from argv[0], such as 'tools/eval_coco_c.py' or 'pit-downstream eval-coco-c'."""
    return Path(program.rpartition(' ')[2]).stem.replace('_', '-')


def build_command(argv: Sequence[str], flags: Mapping[str, Sequence[str]]) -> str:
    """Return the command of a run with `flags` in place of the recorded ones.

    Args:
        argv: Recorded command, sys.argv.
        flags: Values by flag.
    """
    program, *rest = argv
    merged = {**parse_flags(rest), **flags}
    words = [word for flag, values in merged.items() for word in (flag, *values)]
    return shlex.join(['pit-downstream', get_tool(program), *words])
