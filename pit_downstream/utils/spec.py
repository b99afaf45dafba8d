"""Spec: a name with arguments. Its canonical text is the cache key and the table heading."""

import ast
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import total_ordering

from pit_downstream.utils.errors import InputError

Value = bool | int | float | Fraction | str | tuple['Value', ...] | None

_NAME = re.compile(r'[A-Za-z_][\w.:/@-]*')  # 'fog', 'pit_s_224.in1k', 'torchvision:resnet50', 'package.module:function'
_EXPECTED = "a name with arguments like pgd(epsilon=8/255, norm='Linf')"


@total_ordering
@dataclass(frozen=True, eq=False)
class Spec:
    """A name with arguments. Specs with equal canonical text are equal.

    Arguments are sorted by name. Whole numbers have neither point nor denominator: 1.0 and 2/2 become 1.
    """

    name: str
    kwargs: tuple[tuple[str, Value], ...] = ()

    def __post_init__(self):
        if not _NAME.fullmatch(self.name):
            raise InputError(f'expected {_EXPECTED}, got the name {quote(self.name)}')
        keys = [key for key, _ in self.kwargs]
        wrong = [key for key in keys if not key.isidentifier() or keys.count(key) > 1]
        if wrong:
            raise InputError(f'expected {_EXPECTED}, got the argument {quote(wrong[0])} in '
                             f'{quote(self.name)}, repeated or no name')
        object.__setattr__(self, 'kwargs', tuple(sorted((key, _normalize_value(value)) for key, value in self.kwargs)))

    @classmethod
    def of(cls, name: str, **kwargs: Value) -> 'Spec':
        return cls(name, tuple(kwargs.items()))

    @classmethod
    def parse(cls, text: str) -> 'Spec':
        """Parse literals, tuples of literals and fractions n/m. Nothing is evaluated.

        A fraction of decimals is exact and is written with integers: 0.5/255 becomes 1/510.
        """
        name, bracket, inner = text.strip().partition('(')
        if not bracket:
            return cls(name)
        try:
            tree = ast.parse(f'_({inner}', mode='eval').body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InputError(f'expected {_EXPECTED}, got {quote(text)}') from error
        # text after the closing bracket gives another node type, or a call of something other than '_'
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.args:
            raise InputError(f'expected {_EXPECTED}, got {quote(text)}')
        words = [(word.arg, word.value) for word in tree.keywords if word.arg is not None]
        if len(words) < len(tree.keywords):
            raise InputError(f'expected {_EXPECTED}, got ** in {quote(text)}')
        return cls(name, tuple((key, _parse_literal(value, text)) for key, value in words))

    def get(self, key: str, default: Value = None) -> Value:
        return dict(self.kwargs).get(key, default)

    def without(self, *keys: str) -> 'Spec':
        """Return the Spec without the arguments `keys`."""
        return Spec(self.name, tuple((key, value) for key, value in self.kwargs if key not in keys))

    def __str__(self) -> str:
        inner = ', '.join(f'{key}={format_value(value)}' for key, value in self.kwargs)
        return f'{self.name}({inner})' if inner else self.name

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Spec) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: 'Spec') -> bool:
        """Sort by name, then by arguments. Numbers sort by size: severity 2 comes before severity 10."""
        return self._make_sort_key() < other._make_sort_key() if isinstance(other, Spec) else NotImplemented

    def _make_sort_key(self) -> tuple:
        return self.name, tuple((key, _rank(value)) for key, value in self.kwargs), str(self)


def split_outside_quotes(text: str, separator: str) -> Iterator[str]:
    """Yield the stripped parts of `text` between separators outside quoted strings and brackets."""
    depth, quote, start, index = 0, '', 0, 0
    while index < len(text):
        letter = text[index]
        if quote:
            index += letter == '\\'
            quote = '' if letter == quote else quote
        elif letter in '\'"':
            quote = letter
        elif letter in '()[]':
            depth += 1 if letter in '([' else -1
        elif depth == 0 and text.startswith(separator, index):
            yield text[start:index].strip()
            start = index + len(separator)
        index += 1
    yield text[start:].strip()


def quote(value: object, *, limit: int = 200) -> str:
    """Return the repr of a value for an error message, truncated after `limit` characters with its length.

    Bytes are decoded. Use it in all messages that quote input: a flag, a line of a file, the content of a checkpoint.
    """
    if isinstance(value, bytes):
        value = value.decode(errors='replace')
    text = repr(value)
    return text if len(text) <= limit else f'{text[:limit]}... ({len(text)} characters)'


def _parse_literal(node: ast.expr, text: str) -> Value:
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(_parse_literal(item, text) for item in items)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) \
                if not isinstance(value, bool):
            return -value
        case ast.BinOp(op=ast.Div(), left=left, right=right):
            parts = [Fraction(repr(part))
                     for part in (_parse_literal(left, text), _parse_literal(right, text))  # digits as written
                     if isinstance(part, (int, float)) and not isinstance(part, bool) and math.isfinite(part)]
            if len(parts) == 2 and parts[1]:
                return parts[0] / parts[1]
    raise InputError(f'expected literals and fractions n/m as arguments, got {ast.unparse(node)[:200]} in '
                     f'{quote(text)}')


def _normalize_value(value: Value) -> Value:
    """Normalize a value: whole numbers to int, sequences to tuple. Raises InputError for any other type."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(map(_normalize_value, value))
    if isinstance(value, (int, float, Fraction)) and math.isfinite(value):
        return int(value) if value == int(value) else value
    raise InputError(f'expected None, a bool, a finite number, a text or a tuple of these as argument, got '
                     f'{quote(value)}')


def format_value(value: Value) -> str:
    """Return the text of a value in a Spec: strings in quotes, gray levels as 8/255."""
    if isinstance(value, tuple):
        return f'({", ".join(map(format_value, value))}{"," * (len(value) == 1)})'
    if not isinstance(value, Fraction):
        return repr(value)
    # keep gray levels: 10/255, not 2/51; thirds and fifths are rarely gray levels
    levels = 255 // value.denominator if value.denominator > 5 and 255 % value.denominator == 0 else 1
    return f'{value.numerator * levels}/{value.denominator * levels}'


def _rank(value: Value) -> tuple:
    """Return a sort key for values of different types."""
    if isinstance(value, tuple):
        return 3, tuple(map(_rank, value))
    if isinstance(value, str):
        return 2, value
    return (0, 0) if value is None else (1, value)
