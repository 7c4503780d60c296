"""Makes the OpenAPI document, the page that shows it and the TypeScript client's types, all from the protos.

https://spec.openapis.org/oas/v3.1.1.html
"""
