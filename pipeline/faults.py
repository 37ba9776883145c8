"""What a configuration's faults are called in messages: pydantic's list of errors in this project's words.

Contract: every fault is one line, `key: rule, got value`; an unknown key comes with the nearest valid one. Keys are
those of the file: what pydantic adds for the members of a union is left out, and of several members that do not fit the
one that came furthest speaks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from pipeline.sections import Section

_DATE = "must be a date or time, e.g. 2001-01-31 or 2001-01-31T12:00"
_SECTION, _NUMBER, _WHOLE = "must be a section with keys of its own", "must be a number", "must be a whole number"
_SWITCH, _TEXT, _PATH = (
    "must be true or false",
    "must be text (in quotes where YAML reads another thing)",
    "must be a path",
)
_RULES = {
    "bool_parsing": _SWITCH,
    "bool_type": _SWITCH,
    "date_from_datetime_parsing": _DATE,
    "date_parsing": _DATE,
    "date_type": _DATE,
    "datetime_from_date_parsing": _DATE,
    "datetime_object_invalid": _DATE,
    "datetime_parsing": _DATE,
    "datetime_type": _DATE,
    "dict_type": _SECTION,
    "enum": "must be one of {expected}",
    "finite_number": "must be a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": "must be a whole number of ordinary size",
    "int_type": _WHOLE,
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "list_type": "must be a list, e.g. [a, b]",
    "literal_error": "must be one of {expected}",
    "missing": "required, but absent",
    "model_attributes_type": _SECTION,
    "model_type": _SECTION,
    "none_required": "must be left empty",
    "path_type": _PATH,
    "string_pattern_mismatch": "must match {pattern}",
    "string_type": _TEXT,
    "too_long": "must have no more entries than {max_length}",
    "too_short": "must have no fewer entries than {min_length}",
    "tuple_type": "must be a list, e.g. [a, b]",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "required, but absent",
}
"""By pydantic's type of an error; filled with its context."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        key: where, in the file's words; "" for the whole.
        rule: what must hold.
        got: the value as the message ends, "" where it says nothing.
        union: where the union lies of which one member was tried, None outside unions.
    """

    key: tuple[str, ...]
    rule: str
    got: str = ""
    union: tuple[str, ...] | None = None

    def __str__(self) -> str:
        where = ".".join(self.key)
        return f"{where}: {self.rule}{self.got}" if where else f"{self.rule}{self.got}"


def explain(error: ValidationError, *, origin: str, kind: type[Section]) -> str:
    """All faults of a configuration in one message.

    Args:
        error: of pydantic.
        origin: the file.
        kind: class of the configuration.
    """
    faults = _joined([_fault(item, kind) for item in error.errors(include_url=False)])
    lines = "\n".join(f"  {fault}" for fault in faults)
    return f"{origin} must describe an experiment, got {len(faults)} fault(s):\n{lines}"


def _fault(item: Mapping[str, Any], kind: type[Section]) -> Fault:
    key, union, annotations = _where(item["loc"], kind)
    problem, context, value = item["type"], dict(item.get("ctx", {})), item["input"]
    if problem == "value_error":
        return Fault(key, str(context["error"]), union=union)
    if problem == "extra_forbidden":
        return Fault(key, _unknown(key[-1], _keys(annotations)), union=union)
    if problem.startswith("union_tag"):
        tag = context["discriminator"].strip("'")
        key, value = (*key, tag), value.get(tag) if isinstance(value, Mapping) else value
    for name in ("expected", "expected_tags"):
        context[name] = context.get(name, "").replace("'", "").replace(" or ", ", ")
    rule = _RULES.get(problem, "must be another value").format(**context)
    return Fault(key, rule, "" if rule == _RULES["missing"] else f", got {_shown(value)}", union)


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (
        f"unknown key; did you mean {close[0]!r}?" if close else f"unknown key; known keys there are {', '.join(known)}"
    )


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 100 else f"{text[:60]} … {text[-30:]}"


def _where(loc: Sequence[int | str], kind: type[Section]) -> tuple[tuple[str, ...], tuple[str, ...] | None, list[Any]]:
    """Keys of the file, where a union lies whose member the rest is about, and what may hold the last key."""
    key: list[str] = []
    union: tuple[str, ...] | None = None
    here: list[Any] = [kind]
    parent = here
    for position, part in enumerate(loc):
        tagged = [section for section in _sections(here) if str(part) in _tags([section])]
        if tagged and len(_sections(here)) > 1:  # pydantic's name of a member, which may be that of a key too
            union, here = tuple(key), list(tagged)
            continue
        inside = _inside(here, part)
        if not inside and (position < len(loc) - 1 or not _sections(here) or str(part) in _tags(here)):
            union = tuple(key)  # pydantic's name of a member
            continue
        key.append(str(part))
        parent, here = here, inside
    return tuple(key), union, parent


def _inside(annotations: Iterable[Any], part: int | str) -> list[Any]:
    """What may stand at a key, or at a position of a list; nothing where there is no such place."""
    found: list[Any] = []
    for annotation in _members(annotations):
        origin, arguments = get_origin(annotation), get_args(annotation)
        if isinstance(annotation, type) and issubclass(annotation, Section):
            fields = annotation.model_fields
            found += [fields[part].annotation] if isinstance(part, str) and part in fields else []
        elif origin in (list, tuple) and isinstance(part, int):
            found += arguments[:1]
        elif origin is dict and isinstance(part, str):
            found += arguments[1:]
    return found


def _members(annotations: Iterable[Any]) -> list[Any]:
    """Annotations with unions taken apart and what `Annotated` adds dropped."""
    found: list[Any] = []
    for annotation in annotations:
        arguments = get_args(annotation)
        if hasattr(annotation, "__metadata__"):
            found += _members(arguments[:1])
        elif arguments and get_origin(annotation) not in (list, tuple, dict):
            found += _members(a for a in arguments if not isinstance(a, str | int | float))
        else:
            found.append(annotation)
    return found


def _sections(annotations: Iterable[Any]) -> list[type[Section]]:
    return [a for a in _members(annotations) if isinstance(a, type) and issubclass(a, Section)]


def _keys(annotations: Iterable[Any]) -> list[str]:
    return sorted({key for section in _sections(annotations) for key in section.model_fields})


def _tags(annotations: Iterable[Any]) -> set[str]:
    """Values of `kind` that tell the members of a union apart."""
    fields = [section.model_fields.get("kind") for section in _sections(annotations)]
    return {str(tag) for field in fields if field is not None for tag in get_args(field.annotation)}


def _joined(faults: Sequence[Fault]) -> list[Fault]:
    """Faults of the members of one union as one: the member that came furthest, or the rules of all."""
    found: list[Fault] = []
    for fault in faults:
        same = [f for f in faults if f.union == fault.union] if fault.union is not None else [fault]
        deepest = [f for f in same if len(f.key) == max(len(f.key) for f in same)]
        if fault.union is None or len(deepest) < len(same):
            found += [fault] if fault in deepest else []
        elif fault is same[0]:
            rules = dict.fromkeys(f.rule for f in same)
            found.append(Fault(fault.key, " or ".join(rules), fault.got))
    return found
