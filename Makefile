# make demo    the main job on the embedded image, from nothing but Debian and Python
# make test    what CI runs
# make bench   how fast it is on this machine
# make clean   removes what these have made in this folder

PYTHON := .venv/bin/python
READY := .venv/ready

.PHONY: demo test check rings bench setup clean

demo: setup
	$(PYTHON) .ci/demo.py

test: check rings

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# All rings as whoever calls. Root then runs the kernel ring twice more, as users with and without subordinate ids.
rings: setup
	.ci/apt-packages test
	$(PYTHON) -m pytest
ifeq ($(shell id -u),0)
	.ci/as-user pycontain-test -m pytest -p no:cacheprovider tests/kernel
	.ci/as-user pycontain-single -m pytest -p no:cacheprovider tests/kernel
endif

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
