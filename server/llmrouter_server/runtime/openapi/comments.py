"""What the comments of fields promise in fixed words, as keywords of JSON Schema: ranges, lengths, formats, defaults.

The words are those of the protos: `1 to 5`, `at most 64 characters`, `a UUID`, `as YYYY-MM-DD`, `Default 30`. What is
said otherwise stays prose.
"""

from __future__ import annotations

import re
from typing import TypeAlias

Schema: TypeAlias = dict[str, object]

_NUMBER = r"(\d[\d,]*)"
_RANGE = re.compile(rf"\b{_NUMBER} to {_NUMBER}\b")
_LENGTHS = re.compile(rf"{_NUMBER} to {_NUMBER} (?:[\w-]+ )*characters")
_LONGEST = re.compile(rf"at most {_NUMBER} (?:[\w-]+ )*characters")
_PRINTABLE = "printable ASCII characters without spaces"
_DEFAULT = re.compile(r"Default (?:\(0\) )?(?:`(\w+)`|(\d[\d.]*\d|\d)|(true|false)\b|([A-Z]{2,})\b)")
_EMPTY = re.compile(r"\b[Ee]mpty(?:: | for | when )")
_ABSENT = re.compile(r"\b[Aa]bsent\b")


def text_schema(comment: str) -> Schema:
    """Return the schema of a string."""
    if re.search(r"\bUUID(?:v7)?s?\b", comment):
        uuid: Schema = {"type": "string", "format": "uuid"}
        return {"anyOf": [uuid, {"type": "string", "const": ""}]} if _EMPTY.search(comment) else uuid
    if "YYYY-MM-DD" in comment:
        return {"type": "string", "format": "date"}
    schema: Schema = {"type": "string"}
    if lengths := _LENGTHS.search(comment):
        schema |= {"minLength": _int(lengths[1]), "maxLength": _int(lengths[2])}
    elif longest := _LONGEST.search(comment):
        schema["maxLength"] = _int(longest[1])
    if _PRINTABLE in comment:
        schema["pattern"] = "^[!-~]+$"
    return schema


def number_range(comment: str) -> Schema:
    """Return the least and the greatest value, if the comment tells; where 0 stands for the default, it is allowed."""
    found = _RANGE.search(comment)
    if found is None:
        return {}
    return {"minimum": 0 if "Default (0)" in comment else _int(found[1]), "maximum": _int(found[2])}


def default(comment: str) -> Schema:
    """Return what an absent field of a request stands for, if the comment tells."""
    found = _DEFAULT.search(comment)
    if found is None:
        return {}
    word, number, truth, name = found.groups()
    if number:
        return {"default": float(number) if "." in number else int(number)}
    return {"default": truth == "true" if truth else word or name}


def may_be_absent(comment: str) -> bool:
    """Tell whether an answer may lack the field."""
    return _ABSENT.search(comment) is not None


def is_never_returned(comment: str) -> bool:
    """Tell whether an enum's value is only for requests that leave it out anyway."""
    return "Never returned" in comment or "Never sent" in comment


def summary(comment: str) -> tuple[str, str]:
    """Part a comment into its first sentence, without the full stop, and the rest."""
    first = re.match(r"(.+?)\.(?=\s|$)", comment)
    if first is None:
        return comment, ""
    return first[1], comment[first.end() :].strip()


def _int(text: str) -> int:
    return int(text.replace(",", ""))
