"""Argument types for argparse."""

import argparse
import math
from collections.abc import Callable

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import quote


def int_in_range(low: int, high: int = 2 ** 63 - 1) -> Callable[[str], int]:
    """Return an argparse type for an integer in low..high."""
    def number(text: str) -> int:
        if not (text.isdecimal() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f'expected a whole number from {low} up, got {quote(text)}')
        return int(text)
    return number


def decimal(text: str) -> float:
    """Parse a finite number, or a fraction such as 1/255, for argparse."""
    top, slash, bottom = text.partition('/')
    try:
        value = float(top) / float(bottom) if slash else float(text)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f'expected a number, got {quote(text)}') from error
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f'expected a finite number, got {quote(text)}')
    return value


def parse_number(text: str):
    from fractions import Fraction

    from pit_downstream.utils.spec import Spec
    value = Spec.parse(f'size(epsilon={text})').get('epsilon')
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        raise InputError(f'expected a number like 8/255 or 0.5 as epsilon, got {quote(text)}')
    return value


class Once(argparse.Action):
    """Action that stores the values of a flag without repetitions."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, list(dict.fromkeys(values)))


def batch_size(text: str) -> int | str:
    """Parse 'auto' or an integer of at least 1, for argparse."""
    if text != 'auto' and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f'expected auto or a number from 1 up, got {quote(text)}')
    return text if text == 'auto' else int(text)
