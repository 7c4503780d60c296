"""Reads what CEL has made of an expression: as much of cel.expr.CheckedExpr as the limits of conditions are about.

The messages are those of https://github.com/google/cel-spec/tree/master/proto/cel/expr, which no package brings.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

_Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES = {
    "Any": {"value": (2, "CheckedExpr")},
    "CheckedExpr": {"expr": (4, "Expr")},
    "Expr": {
        "const_expr": (3, "Constant"),
        "select_expr": (5, "Select"),
        "call_expr": (6, "Call"),
        "list_expr": (7, "CreateList"),
        "struct_expr": (8, "CreateStruct"),
        "comprehension_expr": (9, "Comprehension"),
    },
    "Constant": {"string_value": (6, "")},
    "Select": {"operand": (1, "Expr")},
    "Call": {"target": (1, "Expr"), "function": (2, ""), "args": (3, "Expr*")},
    "CreateList": {"elements": (1, "Expr*")},
    "CreateStruct": {"entries": (2, "Entry*")},
    "Entry": {"map_key": (3, "Expr"), "value": (4, "Expr")},
    "Comprehension": {
        "iter_range": (2, "Expr"),
        "accu_init": (4, "Expr"),
        "loop_condition": (5, "Expr"),
        "loop_step": (6, "Expr"),
        "result": (7, "Expr"),
    },
}
"""By name, the fields that are read: number and type; empty: a string."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function."""

    function: str
    literals: tuple[str | None, ...]
    """Its arguments, as far as they are written out as strings."""


@dataclass(slots=True)
class Outline:
    """What the limits of conditions are about."""

    calls: list[Call]
    nested_comprehensions: bool = False
    """Whether a comprehension (`exists`, `map` and so on) is anywhere inside another one."""


def outline_of(serialized: bytes) -> Outline:
    """Read a checked expression as CEL serializes it."""
    outline = Outline([])
    packed = _packed_class().FromString(serialized)
    _walk(packed, outline, inside=False)
    return outline


def _walk(message: Any, outline: Outline, *, inside: bool) -> None:  # noqa: ANN401 - made at run time
    name = message.DESCRIPTOR.name
    if name == "Comprehension":
        outline.nested_comprehensions |= inside
        inside = True
    elif name == "Call":
        outline.calls.append(Call(message.function, tuple(map(_literal, message.args))))
    for part in _parts(message):
        _walk(part, outline, inside=inside)


def _parts(message: Any) -> Iterator[Any]:  # noqa: ANN401 - made at run time
    for field, value in message.ListFields():
        if field.message_type is not None:
            yield from value if field.is_repeated else (value,)


def _literal(argument: Any) -> str | None:  # noqa: ANN401 - made at run time
    is_string = argument.HasField("const_expr") and argument.const_expr.HasField("string_value")
    return argument.const_expr.string_value if is_string else None


@functools.cache
def _packed_class() -> Any:  # noqa: ANN401 - made at run time
    """Make the messages, in a pool of their own, and return the outermost one."""
    file = descriptor_pb2.FileDescriptorProto(name="checked.proto", package="checked", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = _Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL
            field.type = _Field.TYPE_MESSAGE if kind else _Field.TYPE_STRING
            if kind:
                field.type_name = f".checked.{kind.rstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("checked.Any"))
