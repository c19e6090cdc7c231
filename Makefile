# Every command of the project. `make help` lists them; each sets up all that it needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Which uv installs Python packages: the pinned one in the cache, whatever the PATH holds.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/crossfold
UV := $(CACHE)/uv-$(shell sed -n 's/^uv==\([^ ]*\).*/\1/p' locks/uv.txt)/uv
export UV_PYTHON_DOWNLOADS := never
PY := .venv/bin/python
DEV := python3 -m devcluster
TOGETHER := python3 -m devcluster.together
# Without the references that it prints for programs; .state/images.json has them.
QUIET_IMAGES := sh -c '$(DEV) images >/dev/null'
PYTEST_ARGS ?=
# For tests that share nothing. Those on the cluster share its few CPUs, and run one after the other.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist worksteal
# A choice of tests (-k, a file) may leave none for one of pytest's two calls.
NONE_CHOSEN = $(if $(PYTEST_ARGS),|| [ $$? = 5 ])
ROUNDS ?= 20
STEADY := tests/component/trainer/test_resume.py tests/component/trainer/test_faults.py

.PHONY: help python env demo ready test unit steady verify gen lock bench-search bench-trainer cluster-up cluster-down images watch clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: .venv/.synced  ## the Python environment, from the hashed locks

$(UV): locks/uv.txt | python
	@$(DEV) uv >/dev/null && touch $@

python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "python3 must be Python 3.11 or newer, and is: $$(python3 --version 2>&1)"; exit 1; }

.venv/.synced: locks/dev.txt pyproject.toml | $(UV)
	@echo "Python environment from locks/dev.txt (torch with CUDA: 2 GB to download when it is not cached)"
	@[ -x $(PY) ] || $(UV) venv -q .venv --python '>=3.11'
	@$(UV) pip sync -q --require-hashes --compile-bytecode locks/dev.txt
	@$(UV) pip install -q --no-deps --no-build-isolation -e .
	@touch $@

demo: python  ## the main job, on a real cluster of one machine: a search over real imagery
	@$(TOGETHER) "make demo" cluster="$(DEV) up" env="$(MAKE) env" images,after=env="$(QUIET_IMAGES)" \
	  demo,after=cluster+env+images="env PYTHONPATH=. $(PY) examples/quickstart/demo.py"

ready: python  ## what the tests need: environment, cluster and images, side by side
	@$(TOGETHER) "make ready" cluster="$(DEV) up" env="$(MAKE) env" images,after=env="$(QUIET_IMAGES)"

test: ready  ## every test, from unit to end-to-end
	@failed=0; eval "$$($(DEV) env)"; \
	  $(MAKE) unit || failed=1; \
	  $(PY) -m pytest -m "cluster or images" --durations=15 $(PYTEST_ARGS) $(NONE_CHOSEN) || failed=1; \
	  exit $$failed

unit: env  ## the tests that need no cluster, in several processes
	@$(PY) -m pytest -m "not cluster and not images" $(SIDE_BY_SIDE) --durations=15 $(PYTEST_ARGS) $(NONE_CHOSEN)

steady: env  ## the tests of resuming and of failing storage, ROUNDS (20) times in a row, each time with other seeds
	@for round in $$(seq $(ROUNDS)); do \
	  echo "round $$round of $(ROUNDS)"; \
	  CROSSFOLD_TEST_ROUND=$$round $(PY) -m pytest -q $(SIDE_BY_SIDE) $(STEADY) $(PYTEST_ARGS); \
	done

verify: env cluster-up  ## lint, types, layers, generated files, locks, chart and manifests
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports
	@$(PY) -m crossfold_operator.crdgen --check
	@.ci/locks-current $(UV)
	@eval "$$($(DEV) env)" && .ci/manifests-valid

gen: env  ## make the generated files anew: CRDs
	@$(PY) -m crossfold_operator.crdgen

lock: $(UV)  ## make the locks anew, with hashes and without the names of hosts
	@.ci/compile-locks $(UV) locks

bench-trainer: env  ## the trainer's speed: data path, start-up, steps (about 6 minutes; keep the machine quiet)
	@PYTHONPATH=. $(PY) -m benchmarks.trainer

bench-search: env  ## racing and the sampler beside other rules and plain Optuna (about 30 minutes; ONLY=racing, times or sampler)
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=. $(PY) -m benchmarks.search $(if $(ONLY),--only $(ONLY))

cluster-up: python  ## a real Kubernetes and two S3 servers on this machine
	@$(DEV) up

cluster-down:  ## take them away, with all that they left
	@$(DEV) down

images: cluster-up  ## build the two images and load them into the cluster
	@$(QUIET_IMAGES)

clean: cluster-down  ## cluster-down, and the Python environment
	@rm -rf .venv
