# Two commands do everything: `make demo` runs the main job, `make test` passes the tests. See README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
NAME ?=

PROTOS := $(shell find protos -name '*.proto')
LAST_ACCEPTED := protos/last_accepted.binpb

.PHONY: build demo test check lint types layers contracts format bench chaos requirements accept-contracts clean

build: client/arterial/api/.generated

demo: build
	@$(BIN)/python -m cli demo $(ARGS)

test: build
	@$(BIN)/python -m pytest -q $(ARGS)

check: lint types layers contracts

lint: build
	@$(BIN)/ruff format --check -q . || { echo "run 'make format'"; exit 1; }
	@$(BIN)/ruff check -q .

types: build
	@$(BIN)/mypy

layers: build
	@$(BIN)/lint-imports

contracts: build
	@$(BIN)/buf lint protos
	@$(BIN)/buf format --diff --exit-code --path protos/arterial protos
	@$(BIN)/buf breaking protos --against $(LAST_ACCEPTED)

format: build
	@$(BIN)/ruff format -q .
	@$(BIN)/ruff check -q --fix .
	@$(BIN)/buf format --write --path protos/arterial protos

bench: build
	@test -n "$(NAME)" || { echo "make bench NAME=..., one of:"; ls bench/*.py | sed 's|bench/||; s|\.py||' | grep -v __; exit 2; }
	@$(BIN)/python -m bench.$(NAME) $(ARGS)

chaos: build
	@test -n "$(NAME)" || { echo "make chaos NAME=..., one of:"; ls chaos/*.py | sed 's|chaos/||; s|\.py||; s|_|-|g' | grep -v -- '--'; exit 2; }
	@$(BIN)/python -m chaos.$(subst -,_,$(NAME)) $(ARGS)

# Accepts the contracts as they are: what `buf breaking` compares with from now on.
accept-contracts: build
	@$(BIN)/buf build protos --exclude-source-info -o $(LAST_ACCEPTED)

requirements: $(VENV)/.bootstrapped
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--group pyproject.toml:dev --extra local pyproject.toml --no-emit-package arterial --no-emit-package arterial-client -o requirements/dev.txt

$(VENV)/.bootstrapped: requirements/bootstrap.txt
	@command -v $(PYTHON) >/dev/null || { echo "Arterial needs Python 3.11 or newer: '$(PYTHON)' was not found (set PYTHON=/path/to/python3)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Arterial needs Python 3.11 or newer: '$(PYTHON)' is older (set PYTHON=/path/to/python3)"; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "Arterial needs Python's venv module (on Debian: the package python3-venv)"; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.bootstrapped requirements/dev.txt pyproject.toml client/pyproject.toml
	@echo "installing pinned dependencies (about 500 MB the first time)"
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation --config-setting editable_mode=compat -e client -e .
	@touch $@

client/arterial/api/.generated: $(VENV)/.installed $(PROTOS)
	@echo "generating stubs"
	@rm -rf client/arterial/api client/buf && mkdir -p client/arterial/api
	@$(BIN)/python -m grpc_tools.protoc -Iprotos --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=client --mypy_out=quiet:client $(PROTOS)
	@$(BIN)/python -m grpc_tools.protoc -Iprotos --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--grpc_python_out=client --mypy_grpc_out=quiet:client $(shell find protos/arterial -name '*_service.proto')
	@$(BIN)/python -m grpc_tools.protoc -Iprotos --include_source_info --descriptor_set_out=client/arterial/api/resources.binpb \
		protos/arterial/api/controlplane/v1/resource.proto protos/arterial/api/controlplane/v1/specs.proto
	@touch $@

clean:
	@rm -rf $(VENV) client/arterial/api client/buf build *.egg-info client/*.egg-info
