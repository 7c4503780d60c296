"""The edge's configuration: what is rendered, what is refused, and that the table of fields is up to date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.runtime.envoy_config import (
    PASSED_HEADERS,
    EdgeParameterError,
    EdgeParameters,
    envoy_command,
    none_of,
    render,
    validate,
)
from llmrouter_server.runtime.envoy_fields import render_fields
from llmrouter_server.runtime.resources import resource_dir

ENVOY = resource_dir("envoy")
REQUIRED: dict[str, Any] = {
    "jwks": "/keys/jwks.json",
    "issuer": "https://issuer.test",
    "audience": "llmrouter",
}


def rendered(**parameters: Any) -> Any:
    return yaml.safe_load(render(EdgeParameters(**REQUIRED | parameters)))


def manager(config: Any) -> Any:
    return config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def http_filter(config: Any, name: str) -> Any:
    return next(each["typed_config"] for each in manager(config)["http_filters"] if each["name"] == name)


def test_parameters_reach_their_places() -> None:
    config = rendered(listen_address="[::1]:443", server_address="router.internal:50051", deadline_s=7)
    address = config["static_resources"]["listeners"][0]["address"]["socket_address"]
    assert address == {"address": "::1", "port_value": "443"}
    routes = {route["name"]: route for route in manager(config)["route_config"]["virtual_hosts"][0]["routes"]}
    for name in ("bearer", "cookie"):
        assert routes[name]["request_headers_to_add"][0]["header"] == {"key": "grpc-timeout", "value": "7S"}
    endpoint = config["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "router.internal", "port_value": "50051"}


def test_values_cannot_break_out_of_their_quotes() -> None:
    evil = 'a"\n- b: ${X} \\ é'
    providers = http_filter(rendered(issuer=evil), "envoy.filters.http.jwt_authn")["providers"]
    assert {provider["issuer"] for provider in providers.values()} == {evil}


def issuer_cluster(config: Any) -> Any:
    *_, cluster = config["static_resources"]["clusters"]
    assert cluster["name"] == cluster["load_assignment"]["cluster_name"] == "issuer"
    return cluster


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://id.example.com/jwks.json", "id.example.com", "443"),
        ("https://ID.example.com:8443/realms/main/certs?a=b&c=%20", "id.example.com", "8443"),
        ("https://id.example.com/$ISSUER/it's", "id.example.com", "443"),
        ("http://keycloak/", "keycloak", "80"),
        ("http://[::1]:8080/jwks", "::1", "8080"),
        ("http://[fd00::1]/jwks", "fd00::1", "80"),
    ],
)
def test_keys_at_a_url_are_fetched_from_its_host(url: str, host: str, port: str) -> None:
    config = rendered(jwks=url, jwks_refresh_s=60)
    for provider in http_filter(config, "envoy.filters.http.jwt_authn")["providers"].values():
        assert "local_jwks" not in provider
        assert provider["remote_jwks"]["http_uri"] == {"uri": url, "cluster": "issuer", "timeout": "5s"}
        assert provider["remote_jwks"]["cache_duration"] == "65s"
    cluster = issuer_cluster(config)
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": host, "port_value": port}
    assert ("transport_socket" in cluster) == url.startswith("https:")


@pytest.mark.parametrize(
    ("host", "server_name", "subject"),
    [
        ("id.example.com", "id.example.com", {"san_type": "DNS", "matcher": {"exact": "id.example.com"}}),
        ("10.0.0.1", "", {"san_type": "IP_ADDRESS", "matcher": {"exact": "10.0.0.1"}}),
        ("[::1]", "", {"san_type": "IP_ADDRESS", "matcher": {"exact": "::1"}}),
    ],
)
def test_https_verifies_the_host(host: str, server_name: str, subject: dict[str, Any]) -> None:
    config = rendered(jwks=f"https://{host}:8443/jwks", ca_file=Path("/keys/ca.pem"))
    tls = issuer_cluster(config)["transport_socket"]["typed_config"]
    assert tls["sni"] == server_name
    assert tls["common_tls_context"]["validation_context"] == {
        "trusted_ca": {"filename": "/keys/ca.pem"},
        "match_typed_subject_alt_names": [subject],
    }


def test_keys_in_a_file_need_no_cluster_and_change_nothing_else() -> None:
    in_file, at_url = rendered(), rendered(jwks="https://id.example.com/jwks.json")
    for provider in http_filter(in_file, "envoy.filters.http.jwt_authn")["providers"].values():
        assert provider.pop("local_jwks") == {"filename": "/keys/jwks.json"}
    for provider in http_filter(at_url, "envoy.filters.http.jwt_authn")["providers"].values():
        del provider["remote_jwks"]
    at_url["static_resources"]["clusters"].remove(issuer_cluster(at_url))
    assert in_file == at_url


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@id.example.com/jwks",
        "https://user@id.example.com/jwks",
        "https://id.example.com/jwks#keys",
        "https://id.example.com",
        "https:///jwks",
        "https://id.example.com:0/jwks",
        "https://id.example.com:65536/jwks",
        "https://id.example.com:/jwks",
        "https://id example.com/jwks",
        "https://id.example.com/j wks",
        "https://id.example.com/jwks\n",
        'https://id.example.com/", cluster: llmrouter, x: "',
        'https://id.example.com"/jwks',
        "https://id.example.com/\\",
        "https://id.example.com/${X}",
        "https://[::1/jwks",
        "https://::1/jwks",
    ],
)
def test_urls_that_cannot_work_are_refused(url: str) -> None:
    with pytest.raises(EdgeParameterError) as caught:
        EdgeParameters(**REQUIRED | {"jwks": url})
    assert str(caught.value) == (
        "jwks must be a file's path or a URL like https://issuer.example.com/jwks.json, without user and fragment, "
        f"not {url!r}"
    )


def test_without_origins_none_is_allowed() -> None:
    config = rendered()
    csrf = http_filter(config, "envoy.filters.http.csrf")
    assert csrf["additional_origins"] == [{"safe_regex": {"regex": "^$"}}]
    assert manager(config)["route_config"]["virtual_hosts"][0]["typed_per_filter_config"]["envoy.filters.http.cors"][
        "allow_origin_string_match"
    ] == [{"safe_regex": {"regex": "^$"}}]


def test_origins_are_matched_literally() -> None:
    config = rendered(
        allowed_origins=("https://a.example.com", "http://localhost:3000"), cors_origin_regex="https://b.*"
    )
    csrf = http_filter(config, "envoy.filters.http.csrf")["additional_origins"][0]["safe_regex"]["regex"]
    assert csrf == r"(?:a\.example\.com)|(?:localhost:3000)"
    policy = manager(config)["route_config"]["virtual_hosts"][0]["typed_per_filter_config"]["envoy.filters.http.cors"]
    assert policy["allow_origin_string_match"][0]["safe_regex"]["regex"] == (
        r"(?:https://a\.example\.com)|(?:http://localhost:3000)|(?:https://b.*)"
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"listen_address": "8080"}, "listen_address must be HOST:PORT, for instance 127.0.0.1:8080, not '8080'"),
        ({"server_address": "a:70000"}, "server_address must be HOST:PORT, for instance 127.0.0.1:8080, not 'a:70000'"),
        ({"issuer": " "}, "issuer must not be empty"),
        ({"audience": ""}, "audience must not be empty"),
        (
            {"admin_socket": Path("/" + "x" * 107)},
            f"admin_socket must be a path of at most 107 bytes, not /{'x' * 107}",
        ),
        (
            {"allowed_origins": ("https://a.example.com/",)},
            "allowed_origins must be like https://console.example.com, without a path, not 'https://a.example.com/'",
        ),
        (
            {"allowed_origins": ("*",)},
            "allowed_origins must be like https://console.example.com, without a path, not '*'",
        ),
        (
            {"cors_origin_regex": "("},
            "cors_origin_regex is no regular expression: missing ), unterminated subpattern at position 0",
        ),
        ({"user_requests_per_s": 0}, "user_requests_per_s must be from 1 to 1000000, not 0"),
        ({"jwks": ""}, "jwks must not be empty"),
        ({"jwks_refresh_s": 0}, "jwks_refresh_s must be from 1 to 3600, not 0"),
        ({"deadline_s": 3601}, "deadline_s must be from 1 to 3600, not 3601"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgeParameterError) as caught:
        EdgeParameters(**REQUIRED | parameters)
    assert str(caught.value) == message


@given(st.sets(st.text("ab-.", max_size=5)), st.text("abc-.", max_size=6))
def test_a_pattern_for_all_other_names_matches_all_but_these(names: set[str], name: str) -> None:
    assert (re.fullmatch(none_of(names), name) is None) == (name in names)
    assert not [each for each in names if re.fullmatch(none_of(names), each)]


@pytest.mark.parametrize("name", ["cookie", "x-user-id", "data-bin", "authorization2", "authorizatio", ":authority-"])
def test_headers_that_are_not_listed_do_not_pass(name: str) -> None:
    config = rendered()
    [mutation] = http_filter(config, "passed-headers")["mutations"]["request_mutations"]
    pattern = mutation["remove_on_match"]["key_matcher"]["safe_regex"]["regex"]
    assert re.fullmatch(pattern, name)
    assert not [each for each in PASSED_HEADERS if re.fullmatch(pattern, each)]


def test_envoy_has_the_last_word(tmp_path: Path) -> None:
    jwks_file = tmp_path / "jwks.json"
    jwks_file.write_text('{"keys": "none"}')
    with pytest.raises(EdgeParameterError, match="Envoy refuses the configuration"):
        validate(EdgeParameters(**REQUIRED | {"jwks": str(jwks_file)}))


def test_the_command_line_validates_and_prints() -> None:
    module = [sys.executable, "-m", "llmrouter_server.runtime.envoy_config"]
    checked = subprocess.run([*module, "--validate"], capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout) == (0, "Envoy accepts the configuration\n"), checked.stderr
    flags = ["--jwks", "/keys/jwks.json", "--issuer", "https://issuer.test", "--audience", "llmrouter"]
    printed = subprocess.run([*module, *flags], capture_output=True, text=True, timeout=60, check=True)
    assert printed.stdout == render(EdgeParameters(**REQUIRED))
    refused = subprocess.run([*module, "--issuer", "x"], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "give --jwks, --audience" in refused.stderr


def test_a_secret_read_from_a_file_is_rendered_without_its_line_end() -> None:
    module = [sys.executable, "-m", "llmrouter_server.runtime.envoy_config"]
    flags = ["--jwks", "/keys/jwks.json", "--issuer", "https://issuer.test", "--audience", "llmrouter"]
    env = os.environ | {"GATEWAY_SECRET": f"{'s' * 40}\n"}
    printed = subprocess.run([*module, *flags], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert printed.stdout == render(EdgeParameters(**REQUIRED | {"gateway_secret": "s" * 40}))


def test_the_command_names_its_configuration(tmp_path: Path) -> None:
    command = envoy_command(tmp_path / "envoy.yaml", concurrency=3, binary=Path("/bin/envoy"))
    assert command[:5] == ["/bin/envoy", "--config-path", str(tmp_path / "envoy.yaml"), "--concurrency", "3"]


def test_the_table_of_fields_is_up_to_date() -> None:
    made = render_fields((ENVOY / "llmrouter.binpb").read_bytes())
    assert made == (ENVOY / "request_fields.lua").read_text(), "run `make generate`"


def test_every_service_with_a_path_is_transcoded() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString((ENVOY / "llmrouter.binpb").read_bytes()).file
    with_path = {
        f"{file.package}.{service.name}"
        for file in files
        for service in file.service
        if any(method.options.HasExtension(annotations_pb2.http) for method in service.method)
    }
    assert set(http_filter(rendered(), "envoy.filters.http.grpc_json_transcoder")["services"]) == with_path


def test_the_kinds_of_fields() -> None:
    text = render_fields(_descriptor_set())
    assert '{"POST", "/v1/things/*:try", "demo.Thing", "id"}' in text
    for line in (
        '{"id"}',
        '{"made_at", "madeAt"}',
        '{"inner", message = "demo.Thing"}',
        '{"items", message = "demo.Thing"}',
        '{"notes", free = true}',
        '{"by_name", "byName", map = "demo.Thing"}',
        '{"labels", map = ""}',
    ):
        assert f"      {line},\n" in text


def _descriptor_set() -> bytes:
    """Return a schema with each kind of field, which the API itself may lack."""
    proto = descriptor_pb2.FileDescriptorProto(
        name="demo.proto",
        package="demo",
        syntax="proto3",
        dependency=["google/protobuf/struct.proto", "google/protobuf/timestamp.proto", "google/api/annotations.proto"],
    )
    thing = proto.message_type.add(name="Thing")
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, (name, type_name, repeated) in enumerate(
        [
            ("id", "", False),
            ("made_at", ".google.protobuf.Timestamp", False),
            ("inner", ".demo.Thing", False),
            ("items", ".demo.Thing", True),
            ("notes", ".google.protobuf.Struct", False),
            ("by_name", ".demo.Thing.ByNameEntry", True),
            ("labels", ".demo.Thing.LabelsEntry", True),
        ],
        start=1,
    ):
        thing.field.add(
            name=name,
            number=number,
            type=kinds.TYPE_MESSAGE if type_name else kinds.TYPE_STRING,
            type_name=type_name or None,
            label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
        )
    for entry, value_type in (("ByNameEntry", ".demo.Thing"), ("LabelsEntry", "")):
        nested = thing.nested_type.add(name=entry)
        nested.options.map_entry = True
        nested.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
        nested.field.add(
            name="value",
            number=2,
            type=kinds.TYPE_MESSAGE if value_type else kinds.TYPE_STRING,
            type_name=value_type or None,
            label=kinds.LABEL_OPTIONAL,
        )
    method = proto.service.add(name="Things").method.add(
        name="Try", input_type=".demo.Thing", output_type=".demo.Thing"
    )
    method.options.Extensions[annotations_pb2.http].post = "/v1/things/{id}:try"
    method.options.Extensions[annotations_pb2.http].body = "*"
    whole = descriptor_pb2.FileDescriptorSet.FromString((ENVOY / "llmrouter.binpb").read_bytes())
    return descriptor_pb2.FileDescriptorSet(file=[*whole.file, proto]).SerializeToString()
