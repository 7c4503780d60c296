#!/usr/bin/env python3
"""Makes the typed services of the Python clients from the protos: a plug-in of protoc, run by `make generate`.

Each service becomes a module of `llmrouter.services` with two classes, for `Client` and for `AsyncClient`. Each RPC
becomes an attribute of the RPC's own name, which takes and returns the messages, and a method in snake_case, which
takes the request's fields and returns what a Python programmer expects: an iterable of a list's items, the bytes of a
stream.
"""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Field = descriptor_pb2.FieldDescriptorProto
Method = descriptor_pb2.MethodDescriptorProto
DescriptorT = TypeVar("DescriptorT", descriptor_pb2.DescriptorProto, descriptor_pb2.ServiceDescriptorProto)

HEADER = (
    '"""{}"""\n\n# Made from the protos by protoc_gen_services.py: do not edit.\n\nfrom __future__ import annotations'
)
FOLDER = "llmrouter/services"
PLURALS = {
    "ProviderService": "providers",
    "ModelService": "models",
    "RoutingRuleService": "rules",
    "CredentialService": "credentials",
}
"""Attributes of the clients that are not just the service's name."""
RESERVED = frozenset({"self", "timeout", "headers"})
"""Arguments of every method."""
SCALARS = {
    Field.TYPE_STRING: ("str", '""'),
    Field.TYPE_BOOL: ("bool", "False"),
    Field.TYPE_UINT32: ("int", "0"),
    Field.TYPE_DOUBLE: ("float", "0.0"),
}
CONVERTED = {
    ".google.protobuf.Struct": ("Mapping[str, object]", "struct_of"),
    ".google.protobuf.Timestamp": ("datetime", "timestamp_of"),
}
"""Messages for which Python has a type of its own, and what makes them of it."""
HTTP_BODY = ".google.api.HttpBody"
CONTENTS = ("contents", "async_contents")
"""What makes bytes of them, for each of the clients."""
WIDTH = 120


@dataclass(frozen=True, slots=True)
class Documented(Generic[DescriptorT]):
    """A message or service with the comments of its parts, by their index."""

    descriptor: DescriptorT
    file: descriptor_pb2.FileDescriptorProto
    comment: str
    parts: dict[int, str]


Message: TypeAlias = Documented[descriptor_pb2.DescriptorProto]
DescribedService: TypeAlias = Documented[descriptor_pb2.ServiceDescriptorProto]


def main() -> None:
    """Answer protoc, which asks through the standard input."""
    asked = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    answer = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    messages = {
        f".{file.package}.{each.descriptor.name}": each for file in asked.proto_file for each in _messages(file)
    }
    enums = {f".{file.package}.{enum.name}": (file, enum) for file in asked.proto_file for enum in file.enum_type}
    chosen = set(asked.file_to_generate)
    services = [each for file in asked.proto_file if file.name in chosen for each in _services(file)]
    for service in services:
        made = Service(service, messages, enums)
        answer.file.add(name=f"{FOLDER}/{made.module}.py", content=made.source())
    answer.file.add(name=f"{FOLDER}/__init__.py", content=_all_services([_names(each) for each in services]))
    sys.stdout.buffer.write(answer.SerializeToString())


class Service:
    """The module of one service."""

    def __init__(
        self,
        service: DescribedService,
        messages: dict[str, Message],
        enums: dict[str, tuple[descriptor_pb2.FileDescriptorProto, descriptor_pb2.EnumDescriptorProto]],
    ) -> None:
        self._service, self._messages, self._enums = service, messages, enums
        self.module, self._class = _names(service)
        self._imports: set[tuple[str, str]] = set()
        self._typing: set[tuple[str, str]] = set()

    def source(self) -> str:
        """Return the whole module."""
        classes = [self._source_of_class(is_async=is_async) for is_async in (False, True)]
        self._typing |= {("llmrouter.calls", "Headers"), ("llmrouter.calls", "Channel")}
        self._typing |= {("llmrouter.aio_calls", "AsyncChannel")}
        lines = [HEADER.format(f"{self._service.descriptor.name} of the protos, for both clients."), ""]
        lines += ["from typing import TYPE_CHECKING", "", *_imports(self._imports), "", "if TYPE_CHECKING:"]
        lines += [f"    {line}" for line in _imports(self._typing - self._imports)]
        name = f"{self._service.file.package}.{self._service.descriptor.name}"
        return "\n".join([*lines, "", f'_SERVICE = "/{name}/"', "", "", "\n\n\n".join(classes), ""])

    def _source_of_class(self, *, is_async: bool) -> str:
        prefix = "Async" if is_async else ""
        methods = [
            (method, self._service.parts.get(index, "")) for index, method in enumerate(self._service.descriptor.method)
        ]
        lines = [f"class {prefix}{self._class}:", *_docstring(_with_summary(self._service.comment), 4), ""]
        lines += [f"    def __init__(self, channel: {prefix}Channel) -> None:"]
        for method, comment in methods:
            kind = "stream" if method.server_streaming else "unary"
            types = f"{self._name_of(method.input_type)}, {self._name_of(method.output_type)}"
            lines.append(f'        self.{method.name} = channel.{kind}(_SERVICE + "{method.name}", {types})')
            lines.extend(_docstring(f"As {_snake(method.name)}, with the messages of the protos.", 8))
            if not comment:
                sys.exit(f"{method.name} has no comment")
        for method, comment in methods:
            lines += ["", *self._source_of_method(method, comment, is_async=is_async)]
        return "\n".join(lines)

    def _source_of_method(self, method: Method, comment: str, *, is_async: bool) -> Iterator[str]:
        request = self._messages[method.input_type]
        fields: Sequence[Field] = request.descriptor.field
        listed = self._listed(method)
        made = ", ".join(f"{field.name}={self._value(field)}" for field in fields)
        building = f"request = {self._name_of(method.input_type)}({made})"
        called = f"{'await ' if is_async else ''}self.{method.name}(request, timeout=timeout, metadata=headers)"
        awaits = is_async
        if listed is not None:
            awaits = False
            returned, body = self._listing(
                method, listed, building.replace("page_token=page_token", "page_token=token"), called
            )
        elif method.server_streaming and method.output_type == HTTP_BODY:
            awaits = False
            generator = "AsyncGenerator" if is_async else "Generator"
            self._typing.add(("collections.abc", generator))
            self._imports.add((f"llmrouter.{'aio_' if is_async else ''}calls", CONTENTS[is_async]))
            returned = f"{generator}[bytes, None{'' if is_async else ', None'}]"
            body = [building, f"return {CONTENTS[is_async]}({called.removeprefix('await ')})"]
        elif not self._messages[method.output_type].descriptor.field:
            returned, body = "None", [building, called]
        else:
            returned, body = self._name_of(method.output_type), [building, f"return {called}"]
        yield f"    {'async ' if awaits else ''}def {_snake(method.name)}("
        yield f"        {', '.join(['self', *self._parameters(fields)])}"
        yield f"    ) -> {returned}:"
        yield from _docstring(_with_arguments(comment, request, fields), 8)
        yield from (f"        {line}" for line in body)

    def _listing(self, method: Method, listed: Field, building: str, called: str) -> tuple[str, list[str]]:
        """Return the type and the body of a method that gives the items of a list, page after page."""
        is_async = called.startswith("await ")
        prefix, response = "Async" if is_async else "", self._name_of(method.output_type)
        self._imports.add(("llmrouter.pages", f"{prefix}Pages"))
        has_pages = "token" in building
        following = "lambda page: page.next_page_token" if has_pages else 'lambda _: ""'
        arguments = f"fetch, {'page_token' if has_pages else repr('')}, lambda page: page.{listed.name}"
        body = [
            "",
            f"{'async ' if is_async else ''}def fetch({'token' if has_pages else '_'}: str) -> {response}:",
            f"    {building}",
            f"    return {called}",
            "",
            f"return {prefix}Pages({arguments}, {following})",
        ]
        return f"{prefix}Pages[{self._type_name(listed)}, {response}]", body

    def _listed(self, method: Method) -> Field | None:
        """Return the field of the response that holds what a List RPC lists."""
        fields: Sequence[Field] = (
            self._messages[method.output_type].descriptor.field if method.name.startswith("List") else ()
        )
        repeated = [field for field in fields if field.label == Field.LABEL_REPEATED]
        return repeated[0] if len(repeated) == 1 else None

    def _parameters(self, fields: Sequence[Field]) -> Iterator[str]:
        required = [field for field in fields if _is_required(field)]
        others = [field for field in fields if not _is_required(field)]
        if taken := RESERVED & {field.name for field in fields}:
            sys.exit(f"a field may not be named {taken}: every method has an argument of that name")
        if len(required) == 1:
            yield f"{required[0].name}: {self._type_name(required[0], given=True)}"
        yield "*"
        for field in required if len(required) > 1 else ():
            yield f"{field.name}: {self._type_name(field, given=True)}"
        for field in others:
            yield f"{field.name}: {self._type_name(field, given=True)}{self._default(field)}"
        yield "timeout: float | None = None"
        yield "headers: Headers | None = None"

    def _type_name(self, field: Field, *, given: bool = False) -> str:
        """Return the field's type, of one item if it is repeated; `given`: as an argument of a method."""
        if field.type == Field.TYPE_ENUM:
            item = self._name_of(field.type_name, typing_only=not given) + ".ValueType"
        elif field.type == Field.TYPE_MESSAGE and given and field.type_name in CONVERTED:
            item = CONVERTED[field.type_name][0]
            self._typing.add(("collections.abc", "Mapping") if item.startswith("Mapping") else ("datetime", item))
        elif field.type == Field.TYPE_MESSAGE:
            item = self._name_of(field.type_name, typing_only=True)
        else:
            item = SCALARS[field.type][0]
        if given and field.label == Field.LABEL_REPEATED:
            self._typing.add(("collections.abc", "Iterable"))
            return f"Iterable[{item}]"
        return item

    def _default(self, field: Field) -> str:
        if field.label == Field.LABEL_REPEATED:
            return " = ()"
        if field.type == Field.TYPE_MESSAGE or field.proto3_optional:
            return " | None = None"
        if field.type == Field.TYPE_ENUM:
            _, enum = self._enums[field.type_name]
            return f" = {enum.name}.{enum.value[0].name}"
        return f" = {SCALARS[field.type][1]}"

    def _value(self, field: Field) -> str:
        if field.type == Field.TYPE_MESSAGE and field.type_name in CONVERTED:
            maker = CONVERTED[field.type_name][1]
            self._imports.add(("llmrouter.values", maker))
            return f"{maker}({field.name})"
        return field.name

    def _name_of(self, full_name: str, *, typing_only: bool = False) -> str:
        """Return the Python name of a message or enum, and import it."""
        file = self._enums[full_name][0] if full_name in self._enums else self._messages[full_name].file
        name = full_name.rpartition(".")[2]
        module = file.name.removesuffix(".proto").replace("/", ".") + "_pb2"
        (self._typing if typing_only else self._imports).add((module, name))
        return name


def _all_services(names: Sequence[tuple[str, str]]) -> str:
    lines = [HEADER.format("Every service of the protos, as attributes of the clients."), ""]
    lines += ["from typing import TYPE_CHECKING", ""]
    lines += _imports(
        {(f"llmrouter.services.{module}", name) for module, each in names for name in (each, f"Async{each}")}
    )
    lines += ["", "if TYPE_CHECKING:", "    from llmrouter.aio_calls import AsyncChannel"]
    lines += ["    from llmrouter.calls import Channel"]
    for prefix in ("", "Async"):
        lines += ["", "", f"class {prefix}Services:", '    """One attribute for each service."""', ""]
        lines += [f"    def __init__(self, channel: {prefix}Channel) -> None:"]
        lines += [f"        self.{module} = {prefix}{name}(channel)" for module, name in sorted(names)]
    return "\n".join([*lines, ""])


def _names(service: DescribedService) -> tuple[str, str]:
    """Return a service's module, which is the clients' attribute too, and the name of its class."""
    name = service.descriptor.name
    return PLURALS.get(name) or _snake(name.removesuffix("Service")), name


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _is_required(field: Field) -> bool:
    return field_behavior_pb2.REQUIRED in field.options.Extensions[field_behavior_pb2.field_behavior]


def _with_arguments(comment: str, request: Message, fields: Sequence[Field]) -> str:
    documented = [f"{field.name}: {request.parts[index]}" for index, field in enumerate(fields)]
    return "\n\n".join([_with_summary(comment), *documented])


def _with_summary(comment: str) -> str:
    """Return a comment whose first sentence is a paragraph of its own."""
    return re.sub(r"(?<=[a-z0-9)])\. (?=[A-Z])", ".\n\n", comment, count=1)


def _docstring(text: str, indent: int) -> list[str]:
    """Return the lines of a docstring, each paragraph wrapped."""
    margin = " " * indent
    escaped = text.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    wrapped = [
        textwrap.wrap(paragraph, WIDTH - indent, initial_indent=margin if at else f'{margin}"""',
                      subsequent_indent=margin + ("    " if re.match(r"[a-z0-9_]+: ", paragraph) else ""),
                      break_long_words=False, break_on_hyphens=False)
        for at, paragraph in enumerate(escaped.split("\n\n"))
    ]  # fmt: skip
    lines = list(wrapped[0])
    for before, paragraph in zip(escaped.split("\n\n"), wrapped[1:], strict=False):
        is_argument = re.match(r"\s*[a-z0-9_]+: ", paragraph[0])
        if not (is_argument and re.match(r"[a-z0-9_]+: ", before)):
            lines.append("")
        lines += paragraph
    if len(lines) == 1 and len(lines[0]) + 3 <= WIDTH:
        return [lines[0] + '"""']
    return [*lines, f'{margin}"""']


def _imports(names: Iterable[tuple[str, str]]) -> list[str]:
    modules: dict[str, set[str]] = {}
    for module, name in names:
        modules.setdefault(module, set()).add(name)
    return [f"from {module} import {', '.join(sorted(modules[module]))}" for module in sorted(modules)]


def _messages(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Message]:
    comments = _comments(file)
    for index, message in enumerate(file.message_type):
        parts = {at: comments.get((4, index, 2, at), "") for at in range(len(message.field))}
        yield Documented(message, file, comments.get((4, index), ""), parts)


def _services(file: descriptor_pb2.FileDescriptorProto) -> Iterator[DescribedService]:
    comments = _comments(file)
    for index, service in enumerate(file.service):
        parts = {at: comments.get((6, index, 2, at), "") for at in range(len(service.method))}
        yield Documented(service, file, comments.get((6, index), ""), parts)


def _comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Return the comment before each thing, its paragraphs in one line each, by the thing's path in the descriptor."""
    found = {}
    for location in file.source_code_info.location:
        paragraphs = re.split(r"\n\s*\n", location.leading_comments.strip())
        found[tuple(location.path)] = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return found


if __name__ == "__main__":
    main()
