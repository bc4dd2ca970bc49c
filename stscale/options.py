"""Options with a meaning: declared once, checked at construction, printed as commented TOML."""

import dataclasses
import hashlib
import json
import types
import typing
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from stscale.errors import InputError

T = TypeVar("T")


def option(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """Declare a field of a configuration section.

    Parameters
    ----------
    default
        The value used when nothing is said.
    meaning
        One line for `stscale config`: what the option does and its unit.
    low, high
        Inclusive bounds of a number (of each item of a tuple).
    above
        Exclusive lower bound.
    """
    metadata = {"meaning": meaning, "low": low, "high": high, "above": above}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A frozen, keyword-only group of options whose values are checked against their declarations."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            where = f"{type(self).__name__.lower()}.{field.name}"
            value = _coerced(getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
            if not _fits(value, hints[field.name]):
                raise InputError(f"{where} = {value!r}: expected {_said(hints[field.name])}")
            if field.metadata:
                _check_bounds(where, value, field.metadata)
        self.check()

    def check(self) -> None:
        """Refuse contradictions between fields; sections with any override it."""


def _coerced(value: Any, hint: Any) -> Any:
    """Turn what TOML and the command line can say into what the field holds (lists → tuples, 1 → 1.0)."""
    if isinstance(value, list):
        value = tuple(value)
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds and int not in kinds:
        return float(value)
    if isinstance(value, tuple):
        for kind in kinds:
            if get_origin(kind) is tuple and get_args(kind)[0] is float:
                return tuple(float(v) if isinstance(v, int) else v for v in value)
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint is type(None):
        return value is None
    if hint in (int, float):
        return isinstance(value, hint) and not isinstance(value, bool)
    return isinstance(value, hint)


def _said(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_said(kind) for kind in get_args(hint))
    if origin is Literal:
        return " | ".join(repr(v) for v in get_args(hint))
    if origin is tuple:
        return f"a list of {_said(get_args(hint)[0])}"
    return (
        "nothing"
        if hint is type(None)
        else {"int": "an integer", "float": "a number", "str": "a text"}.get(hint.__name__, f"a {hint.__name__}")
    )


def _check_bounds(where: str, value: Any, bounds: Any) -> None:
    for v in value if isinstance(value, tuple) else (value,):
        if not isinstance(v, int | float) or isinstance(v, bool):
            continue
        if bounds["low"] is not None and not v >= bounds["low"]:
            raise InputError(f"{where} = {v}: must be at least {bounds['low']}")
        if bounds["high"] is not None and not v <= bounds["high"]:
            raise InputError(f"{where} = {v}: must be at most {bounds['high']}")
        if bounds["above"] is not None and not v > bounds["above"]:
            raise InputError(f"{where} = {v}: must be above {bounds['above']}")


def build(section: type[T], values: dict[str, Any], where: str) -> T:
    """Make a section from plain values, refusing unknown names.

    Raises
    ------
    InputError
        When a name is unknown (the known ones are listed) or a value does not fit.
    """
    import difflib

    known = [f.name for f in dataclasses.fields(section)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(known)
            raise InputError(f"[{where}] has no option {name!r}; {hint}")
    return section(**values)


def digest(value: Any) -> str:
    """Hash plain data and dataclasses to 16 hex digits: equal settings, equal digest."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
