"""Registries of the names that a Spec may use. To add an object, register it under a name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import quote

T = TypeVar('T')
Given = TypeVar('Given')  # type of the object, which may be narrower than the registry's


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered object with its metadata (group, strengths, source ...)."""

    value: T
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Registry(Generic[T]):
    """Objects by name, in order of registration. `noun` is the word for one object in messages."""

    def __init__(self, noun: str):
        self.noun = noun
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, **metadata: Any) -> Callable[[Given], Given]:
        """Return a decorator that registers an object under `name` and returns it unchanged."""
        def add(value: Given) -> Given:
            if name in self._entries and not _is_redefined(self._entries[name].value, value):
                raise InputError(f'there is a {self.noun} named {quote(name)} already; choose another name')
            self._entries[name] = Entry(cast(T, value), MappingProxyType(metadata))
            return value
        return add

    def get_entry(self, name: str) -> Entry[T]:
        if name not in self._entries:
            near = get_close_matches(name, self._entries)
            hint = f'did you mean {", ".join(near)}?' if near else f'there are {", ".join(self._entries)}'
            raise InputError(f'no {self.noun} named {quote(name)}; {hint}')
        return self._entries[name]

    def __getitem__(self, name: str) -> T:
        return self.get_entry(name).value

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _is_redefined(before: Any, after: Any) -> bool:
    """Return whether a class or function replaces itself, as when a notebook cell runs again."""
    names = [(getattr(value, '__module__', None), getattr(value, '__qualname__', None)) for value in (before, after)]
    return names[0] == names[1] and None not in names[0]


# Core does not import the types of higher layers; the callers check them
CORRUPTIONS: Registry[Callable[..., Any]] = Registry('corruption')
ATTACKS: Registry[Any] = Registry('attack')
METRICS: Registry[Any] = Registry('metric')
DATASETS: Registry[Any] = Registry('dataset')
BENCHMARKS: Registry[Any] = Registry('benchmark')
SECTIONS: Registry[Any] = Registry('section')
