"""Measurement conditions: a corruption of the images before the model, and an attack on the model."""

from dataclasses import dataclass
from functools import total_ordering

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec, quote, split_outside_quotes

_CLEAN, _AND = 'clean', '+'


@total_ordering
@dataclass(frozen=True)
class Condition:
    """At most one corruption and at most one attack. With neither, the condition is clean.

    The text form is the store key and the table heading: 'clean', 'fog(severity=3)', 'clean + pgd(epsilon=8/255)',
    'fog(severity=3) + pgd(epsilon=8/255)'.
    """

    corruption: Spec | None = None
    attack: Spec | None = None

    @classmethod
    def parse(cls, text: str) -> 'Condition':
        before, *against = split_outside_quotes(text, _AND)
        if len(against) > 1:
            raise InputError(f'a condition holds one corruption and one attack at most, got {quote(text)}')
        return cls(None if before == _CLEAN else Spec.parse(before), Spec.parse(against[0]) if against else None)

    def __str__(self) -> str:
        before = _CLEAN if self.corruption is None else str(self.corruption)
        return before if self.attack is None else f'{before} {_AND} {self.attack}'

    def __lt__(self, other: 'Condition') -> bool:
        """Sort clean before corrupted before attacked conditions."""
        return self._make_sort_key() < other._make_sort_key() if isinstance(other, Condition) else NotImplemented

    def _make_sort_key(self) -> tuple:
        nothing = Spec(_CLEAN)
        return (self.attack is not None, self.attack or nothing, self.corruption is not None,
                self.corruption or nothing)


CLEAN = Condition()
