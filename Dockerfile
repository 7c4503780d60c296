# The server and its commands. `docker build -t llmrouter .`; settings come from the environment, see README.md.
# Envoy runs from its own image: see deploy/kubernetes. This file has been checked (`make check-deploy`), but never built.
FROM python:3.13-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source
# What changes seldom comes first. Every package is checked by its hash.
COPY deploy/build.lock deploy/serve.lock ./
RUN python -m venv --without-pip /opt/llmrouter \
 && python -m pip install --require-hashes -r build.lock \
 && python -m pip --python /opt/llmrouter install --require-hashes -r serve.lock
COPY pyproject.toml README.md LICENSE ./
COPY clients/python clients/python
COPY envoy envoy
COPY migrations migrations
COPY server server
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels ./clients/python . \
 && python -m pip --python /opt/llmrouter install --no-deps wheels/*.whl

FROM python:3.13-slim-trixie
COPY --from=build /opt/llmrouter /opt/llmrouter
ENV PATH=/opt/llmrouter/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Nobody in particular; writes nothing but below /tmp.
USER 65532:65532
EXPOSE 50051 50052 9464
ENTRYPOINT ["llmrouter"]
CMD ["serve"]
