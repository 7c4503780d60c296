"""Writes what is made from the protos with their comments.

`python -m llmrouter_server.runtime.openapi < descriptors`, made by protoc with --include_source_info.
"""

from __future__ import annotations

import json
import sys

from llmrouter_server.runtime.openapi.document import make_document
from llmrouter_server.runtime.openapi.page import make_page
from llmrouter_server.runtime.openapi.protos import read_protos
from llmrouter_server.runtime.openapi.typescript import make_typescript
from llmrouter_server.runtime.resources import resource_dir


def main() -> None:
    """Write the document and its page where Envoy serves them from, and the TypeScript client's part."""
    document = make_document(read_protos(sys.stdin.buffer.read()))
    envoy_dir = resource_dir("envoy")
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (envoy_dir / "openapi.json").write_text(text, encoding="utf-8")
    client = envoy_dir.parent / "clients" / "typescript" / "src" / "api.ts"
    client.write_text(make_typescript(document), encoding="utf-8")
    (envoy_dir / "docs.html").write_text(make_page(document), encoding="utf-8")


if __name__ == "__main__":
    main()
