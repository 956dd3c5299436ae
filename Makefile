# Every task of the project is a target of this file. `make help` lists them.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run stop test check format lint types imports unit unit-libraries unit-slow unit-gevent unit-haswell unit-nehalem environments test-environments e2e bench bench-quick soak attacks audit fuzz test-clients publish-examples lock clean programs test-host dist test-oldest
.DEFAULT_GOAL := help

help: ## list these targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# The locked files name every distribution, so pip resolves nothing; the version of pip that reads them is locked too.
INSTALL := $(BIN)/python -m pip install --quiet --require-hashes --no-deps --only-binary :all:

# Each installation leaves a stamp file, so that the next `make run` does not install again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { echo "tableside: $(PYTHON) is not Python 3.11 to 3.14; name one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh deploy/need.sh none:python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installer: requirements/installer.txt | $(BIN)/pip
	$(INSTALL) -r requirements/installer.txt
	@touch $@

$(VENV)/.base: requirements/base.txt pyproject.toml $(VENV)/.installer
	$(INSTALL) -r requirements/base.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@test -x $(BIN)/supervisorctl || $(INSTALL) --force-reinstall -r requirements/base.txt # an older release had a command of this name
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.base
	$(INSTALL) -r requirements/dev.txt
	@touch $@

$(VENV)/.libraries: requirements/libraries.txt $(VENV)/.dev
	$(INSTALL) --no-compile -r requirements/libraries.txt
	@touch $@

run: $(VENV)/.base ## install everything and serve the models in models/
	@sh deploy/need.sh nginx:nginx-light || echo "tableside: starting without nginx; gunicorn serves the port itself" >&2
	@exec $(BIN)/tableside run

stop: ## stop the stack that `make run` started
	@$(BIN)/tableside stop

STEPS := format lint types imports unit unit-slow unit-gevent unit-haswell unit-nehalem environments e2e unit-libraries
# The tests start these programs: nginx, a browser that opens /docs, curl, and openssl. libatomic is for Playwright, which drives the
# browser; libgomp for LightGBM, whose package does not bring it; prometheus scrapes the stack, and promtool checks
# /metrics and the rules in deploy/.
PROGRAMS := nginx:nginx-light chromium|google-chrome:chromium curl:curl openssl:openssl libatomic.so.1:libatomic1 libgomp.so.1:libgomp1 promtool:prometheus prometheus:prometheus

programs:
	@sh deploy/need.sh $(PROGRAMS:%='%')

test: programs $(VENV)/.dev ## install everything and run every check and test
	@$(BIN)/python -m tests.steps $(STEPS)

check: format lint types imports ## check format, lint rules, types and import layers

format: $(VENV)/.dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

unit: $(VENV)/.dev ## run the unit and blueprint tests, under 3 minutes
	$(BIN)/python -m pytest tests/unit tests/blueprints -n 2 -m "not slow"

unit-slow: $(VENV)/.dev ## the unit tests that take many seconds each
	$(BIN)/python -m pytest tests/unit tests/blueprints -n 3 -m "slow and not fuzz"

unit-libraries: programs $(VENV)/.libraries ## the tests of XGBoost, LightGBM, CatBoost and other libraries, which it installs
	$(BIN)/python -m pytest tests/libraries -n 2

# Under gevent threads, locks, sockets and processes are others. Files that name none of them are not run again for that.
WITH_THREADS = $(shell grep -lE 'gevent|greenlet|thread|[Oo]ffload|concurrent|[Ll]ock|Event|[Rr]egistry|[Bb]atch|worker|make_app|metrics|logs|socket|subprocess' tests/unit/test_*.py)

# BLAS rounds differently on another processor. The three targets below show that no test depends on the last bits of a
# result: each test of a model is run with one other kernel, those of what is kept from one processor to another with the
# most distant one. Files that name no model and no estimator compute nothing with BLAS, so they are not run again for that.
WITH_MODELS = $(shell grep -lE 'sklearn|estimator_zoo|publish|golden|learned|own_code|typed_models|misbehaving|small_repository|make_app|contract_of' tests/unit/test_*.py)
WITH_GOLDEN = $(shell grep -lE 'golden|toleran|every_blas' tests/unit/test_*.py)
OTHERS_WITH_MODELS = $(filter-out $(WITH_GOLDEN),$(WITH_MODELS))

unit-gevent: $(VENV)/.dev ## run unit tests in a process patched by gevent, like a worker, with the BLAS kernels for Intel Haswell
	OPENBLAS_CORETYPE=Haswell TABLESIDE_HYPOTHESIS=few $(BIN)/python -m tests.under_gevent $(sort $(WITH_THREADS) $(OTHERS_WITH_MODELS)) -m "not processes and not no_greenlets and not slow" -p no:xdist

unit-haswell: $(VENV)/.dev ## run the tests of models that `unit-gevent` leaves out with the same BLAS kernels, without gevent
	OPENBLAS_CORETYPE=Haswell TABLESIDE_HYPOTHESIS=few $(BIN)/python -m pytest $(OTHERS_WITH_MODELS) -n 2 -m "no_greenlets and not processes and not slow"

unit-nehalem: $(VENV)/.dev ## run the unit tests of golden answers with the BLAS kernels for Intel Nehalem
	OPENBLAS_CORETYPE=Nehalem TABLESIDE_HYPOTHESIS=few $(BIN)/python -m pytest $(WITH_GOLDEN) -n 2 -m "not processes and (not slow or every_blas)"

environments: programs $(VENV)/.dev ## run the tests against two older releases of scikit-learn, which are installed once
	$(BIN)/python -m pytest tests/environments -n 2 --dist loadfile

test-environments: programs $(VENV)/.dev ## the same with every Python found (PATH, TABLESIDE_TEST_PYTHONS) and every release
	TABLESIDE_TEST_ALL_ENVIRONMENTS=1 $(BIN)/python -m pytest tests/environments -n 2

test-oldest: programs $(VENV)/.dev ## the unit tests with the lowest versions of the libraries that the wheel accepts, in an environment of their own
	sh tests/oldest.sh

test-clients: programs $(VENV)/.dev ## real clients and generated ones in locked environments of their own; writes docs/reference/clients.md
	@sh deploy/need.sh ab:apache2-utils javac:default-jdk-headless || true
	$(BIN)/python -m pytest tests/clients -n 0

e2e: programs $(VENV)/.dev ## run the end-to-end tests against the real stack
	$(BIN)/python -m pytest tests/e2e -n 2 --dist loadfile --no-loadscope-reorder -m "not soak"

test-host: ## what needs a whole host: control groups, process 1, systemd, install.sh, the image, a new Debian (root, debootstrap)
	bash tests/host/limits.sh
	bash tests/host/process_one.sh
	bash tests/host/service.sh
	bash tests/host/booted.sh
	bash tests/host/install_script.sh
	bash tests/host/image.sh
	bash tests/host/fresh_machine.sh

bench: $(VENV)/.base ## compare with other servers on this machine, about 40 minutes (benchmarks/README.md)
	@sh deploy/need.sh nginx:nginx-light wrk:wrk
	$(BIN)/python -m benchmarks.compare

bench-quick: $(VENV)/.base ## compare one model without serving products, about 5 minutes
	@sh deploy/need.sh nginx:nginx-light wrk:wrk
	$(BIN)/python -m benchmarks.compare --peers tableside,tableside-nginx,bare-tableside,bare-gevent,bare-pywsgi,flask,fastapi --models logistic --rounds 2 --name quick

ROUNDS ?= 3
soak: $(VENV)/.dev ## restart, kill and upgrade a stack of 200 models beside a steady client: ROUNDS=3, about 40 minutes
	@sh deploy/need.sh nginx:nginx-light
	$(BIN)/python -m pytest tests/e2e -m soak
	$(BIN)/python -m benchmarks.soak --rounds $(ROUNDS)

dist: $(VENV)/.dev ## build the wheel and the source distribution into dist/
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --quiet .
	@ls -l dist

publish-examples: $(VENV)/.base ## train the example models and publish each as its next version
	$(BIN)/python -m examples.train models

# `make lock UPGRADE=` keeps the locked versions and only adds what is new in the .in files.
UPGRADE := --upgrade
LOCK_OPTIONS = $(UPGRADE) --generate-hashes --universal --python-version 3.11 --no-strip-extras --only-binary :all: --no-emit-index-url --no-header -q
lock: $(VENV)/.dev ## resolve requirements/*.in to the newest versions and lock them
	set -e; cd requirements; for each in installer base onnx tracing dev bench libraries; do ../$(BIN)/uv pip compile $$each.in -o $$each.txt $(LOCK_OPTIONS); done
	set -e; cd requirements/clients; for each in *.in; do ../../$(BIN)/uv pip compile $$each -o $${each%.in}.txt $(LOCK_OPTIONS); done
	set -e; cd requirements/environments; for each in *.in; do ../../$(BIN)/uv pip compile $$each -o $${each%.in}.txt $(filter-out --python-version 3.11,$(LOCK_OPTIONS)) --python-version $$(sed -n 's/^# python //p' $$each); done

attacks: $(VENV)/.base ## send every known attack to a stack of two workers beside a steady client, about 6 minutes
	@sh deploy/need.sh nginx:nginx-light
	$(BIN)/python -m benchmarks.attacks

audit: $(VENV)/.dev ## ask the OSV database for known weaknesses of the locked packages (needs the network)
	$(BIN)/python -m tests.audit

# FUZZ_SECONDS: how long; SEED: repeat the inputs of an earlier run.
FUZZ_SECONDS ?= 600
SEED ?= 0
fuzz: $(VENV)/.dev ## send generated and mutated bodies and files for FUZZ_SECONDS=600
	$(BIN)/python -m pytest tests/unit tests/blueprints -n 2 -m fuzz
	$(BIN)/python -m tests.hostile.fuzz --seconds $(FUZZ_SECONDS) --seed $(SEED)

clean: ## remove the environment, the run folder and caches, but no models
	rm -rf $(VENV) run .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
