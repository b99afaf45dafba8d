"""Argument types and actions for argparse."""

import argparse
import math
from collections.abc import Callable
from fractions import Fraction

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.extras import require_extra
from pit_downstream.utils.spec import Spec, quote


def int_in_range(low: int, high: int = 2 ** 63 - 1) -> Callable[[str], int]:
    """Return an argparse type for an integer in low..high."""
    def parse(text: str) -> int:
        if not (text.isdecimal() and low <= int(text) <= high):
            up_to = f'{low}..{high}' if high < 2 ** 63 - 1 else f'{low} or more'
            raise argparse.ArgumentTypeError(f'expected an integer, {up_to}, got {quote(text)}')
        return int(text)
    return parse


def parse_decimal(text: str) -> float:
    """Parse a finite number, or a fraction such as 1/255, for argparse."""
    top, slash, bottom = text.partition('/')
    try:
        value = float(top) / float(bottom) if slash else float(text)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f'expected a number, got {quote(text)}') from error
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f'expected a finite number, got {quote(text)}')
    return value


def parse_epsilon(text: str) -> int | float | Fraction:
    """Parse a perturbation size, such as 8/255 or 0.5. Fractions are exact."""
    value = Spec.parse(f'size(epsilon={text})').get('epsilon')
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        raise InputError(f'epsilon must be a number like 8/255 or 0.5, got {quote(text)}.')
    return value


def parse_batch_size(text: str) -> int | str:
    """Parse 'auto' or an integer of at least 1, for argparse."""
    if text != 'auto' and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f'expected auto or an integer, 1 or more, got {quote(text)}')
    return text if text == 'auto' else int(text)


class StoreUnique(argparse.Action):
    """Action that stores the values of a flag without repetitions."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, list(dict.fromkeys(values)))


class StoreConfigOptions(argparse.Action):
    """Action that parses KEY=VALUE as mmengine does, which is imported only when the flag is given."""

    def __call__(self, parser, namespace, values, option_string=None):
        require_extra('train')
        from mmengine.config import DictAction
        DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)
