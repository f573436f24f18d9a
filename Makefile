# make demo     the main job on the embedded image, from nothing but Debian and Python
# make test     what CI runs
# make attacks  the attacks alone, each in a jail
# make machines chosen tests in virtual machines, where there is a program to boot them
# make all-machines every attack there, on each kernel as each kind of user: long
# make aarch64  chosen tests on an emulated machine of that kind; on demand, for it takes an hour
# make bench    how fast it is on this machine
# make clean    removes what these have made in this folder

PYTHON := .venv/bin/python
READY := .venv/ready
RINGS := ring-caller attacks machines

# Root runs the kernel ring twice more: as a user with subordinate ids, and as one without.
ifeq ($(shell id -u),0)
RINGS += ring-subids ring-single
ATTACKERS := attacks-root attacks-subids attacks-single
endif

# One failure does not hide the next.
MAKEFLAGS += --keep-going

.PHONY: demo test lint format types $(RINGS) $(ATTACKERS) all-machines aarch64 bench setup clean

demo: setup
	$(PYTHON) .ci/demo.py

test: lint format types $(RINGS)

lint: setup
	.venv/bin/ruff check .

format: setup
	.venv/bin/ruff format --check .

types: setup
	.venv/bin/mypy

ring-caller: setup
	.ci/apt-packages test
	.ci/debian-tree
	.ci/docker-programs
	$(PYTHON) -m pytest --durations=10 --durations-min=3 --ignore=tests/attacks

ring-subids: setup
	.ci/as-user pycontain-test -m pytest -p no:cacheprovider tests/kernel

ring-single: setup
	.ci/as-user pycontain-single -m pytest -p no:cacheprovider tests/kernel

# Attacks may succeed, so they are made in a jail, and the jail needs root.
attacks: $(ATTACKERS)
	@$(if $(ATTACKERS),,echo "LEFT OUT: the attacks of tests/attacks, whose jail needs root")

attacks-root: setup
	.ci/jail $(PYTHON) -m pytest -p no:cacheprovider tests/attacks

attacks-subids: setup
	.ci/jail .ci/as-user pycontain-test -m pytest -p no:cacheprovider tests/attacks

attacks-single: setup
	.ci/jail .ci/as-user pycontain-single -m pytest -p no:cacheprovider tests/attacks

# Says so where nothing boots a virtual machine.
machines: setup
	.ci/vm-tests

all-machines: setup
	.ci/vm-tests --all

aarch64: setup
	.ci/apt-packages aarch64
	$(PYTHON) .ci/aarch64 .ci/aarch64-tests

bench: setup
	$(PYTHON) -m benchmarks

setup: $(READY)

$(READY): pyproject.toml .ci/apt-packages .ci/make-venv
	.ci/apt-packages build
	.ci/make-venv
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
