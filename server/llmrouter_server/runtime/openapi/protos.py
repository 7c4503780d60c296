"""The protos as their authors wrote them: descriptors with their comments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import descriptor_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGE = "llmrouter.v2"
REQUIRED = field_behavior_pb2.FieldBehavior.Value("REQUIRED")
OUTPUT_ONLY = field_behavior_pb2.FieldBehavior.Value("OUTPUT_ONLY")
INPUT_ONLY = field_behavior_pb2.FieldBehavior.Value("INPUT_ONLY")

Message: TypeAlias = descriptor_pb2.DescriptorProto
Enum: TypeAlias = descriptor_pb2.EnumDescriptorProto
ProtoField: TypeAlias = descriptor_pb2.FieldDescriptorProto

# Where a comment belongs: numbers of the fields of descriptor.proto, and indexes, in turn.
_MESSAGES, _NESTED, _FIELDS, _ENUMS, _VALUES, _SERVICES, _METHODS = 4, 3, 2, 5, 2, 6, 2


@dataclass(frozen=True, slots=True)
class Binding:
    """An RPC as it can be called over HTTP."""

    service: str
    name: str
    comment: str
    service_comment: str
    verb: str
    """In lower case."""
    path: str
    has_body: bool
    request: str
    """Full name of the message."""
    response: str
    is_stream: bool

    @property
    def path_fields(self) -> list[str]:
        """The request's fields that are in the path."""
        return re.findall(r"{(\w+)}", self.path)


@dataclass(frozen=True, slots=True)
class Protos:
    """The package's messages, enums and bindings."""

    messages: Mapping[str, Message]
    enums: Mapping[str, Enum]
    bindings: tuple[Binding, ...]
    """By service, as the protos have them."""
    services: Mapping[str, str]
    """Their comments."""
    comments: Mapping[str, str] = field(repr=False)
    """By full name: of messages, fields, enums and their values (below their enum)."""

    def of_field(self, message: str, name: str) -> str:
        """Return a field's comment."""
        return self.comments[f"{message}.{name}"]


def read_protos(descriptor_set: bytes) -> Protos:
    """Read a serialized FileDescriptorSet that was made with --include_source_info; ValueError when it was not."""
    messages: dict[str, Message] = {}
    enums: dict[str, Enum] = {}
    comments: dict[str, str] = {}
    services: dict[str, str] = {}
    bindings: list[Binding] = []
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        said = {tuple(place.path): _clean(place.leading_comments) for place in file.source_code_info.location}
        for index, outer in enumerate(file.message_type):
            for name, message, place in _with_nested(f"{file.package}.{outer.name}", outer, (_MESSAGES, index)):
                messages[name], comments[name] = message, said.get(place, "")
                for number, each in enumerate(message.field):
                    comments[f"{name}.{each.name}"] = said.get((*place, _FIELDS, number), "")
        for index, enum in enumerate(file.enum_type):
            name = f"{file.package}.{enum.name}"
            enums[name], comments[name] = enum, said.get((_ENUMS, index), "")
            for number, value in enumerate(enum.value):
                comments[f"{name}.{value.name}"] = said.get((_ENUMS, index, _VALUES, number), "")
        for index, service in enumerate(file.service):
            of_service = said.get((_SERVICES, index), "")
            services[service.name] = of_service
            for number, method in enumerate(service.method):
                comment = said.get((_SERVICES, index, _METHODS, number), "")
                bindings += _bindings(service.name, of_service, method, comment)
    if not any(comments.values()):
        raise ValueError("the descriptors have no comments: make them with --include_source_info")
    return Protos(messages, enums, tuple(bindings), services, comments)


def _with_nested(name: str, message: Message, place: tuple[int, ...]) -> Iterator[tuple[str, Message, tuple[int, ...]]]:
    """Yield a message and those within it, each with its full name and where its comments belong."""
    yield name, message, place
    for index, nested in enumerate(message.nested_type):
        yield from _with_nested(f"{name}.{nested.name}", nested, (*place, _NESTED, index))


def _bindings(
    service: str, service_comment: str, method: descriptor_pb2.MethodDescriptorProto, comment: str
) -> Iterator[Binding]:
    if not method.options.HasExtension(annotations_pb2.http):
        return
    rule = method.options.Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    if verb not in ("get", "put", "post", "delete", "patch") or rule.additional_bindings or rule.body not in ("", "*"):
        raise ValueError(f"{service}.{method.name}: only one plain binding with the whole body is supported")
    yield Binding(
        service=service,
        name=method.name,
        comment=comment,
        service_comment=service_comment,
        verb=verb,
        path=getattr(rule, verb),
        has_body=rule.body == "*",
        request=method.input_type.removeprefix("."),
        response=method.output_type.removeprefix("."),
        is_stream=method.server_streaming,
    )


def behaviour(each: ProtoField) -> frozenset[int]:
    """Return the field's google.api.field_behavior."""
    return frozenset(each.options.Extensions[field_behavior_pb2.field_behavior])


def _clean(comment: str) -> str:
    """Join the lines of each paragraph; paragraphs are parted by an empty line."""
    paragraphs = re.split(r"\n\s*\n", comment.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
