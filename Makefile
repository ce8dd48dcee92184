# lpxfer: set up, try, test. Everything made here stays in this directory, except the system
# packages that `make test` installs where it may; tests/system-packages says what it does.
#
#   make demo    set up, then take real files the whole way in ./demo
#   make test    set up, then run the tests
#   make check   style, types, man pages, spelling
#   make torture break everything and count what survived: as root, about half an hour on two cores
#   make bench   run the benchmarks, and compare with others: as root, hours
#   make clean   remove what the others made

VENV := .venv
BIN := $(VENV)/bin
SYSTEM := tests/system-packages

# The first Python that is new enough; `make PYTHON=/path/to/python3 ...` names another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

# Programs that `make bench` compares with or needs, and their packages of Debian.
BENCHED := rsync:rsync lftp:lftp cc:gcc cc:libc6-dev

# vsftpd cannot be installed beside proftpd, so it is unpacked here.
export LPXFER_VSFTPD ?= $(CURDIR)/.cache/vsftpd/usr/sbin/vsftpd

.PHONY: help demo test check torture bench clean system
help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/installed
	$(BIN)/xfer-demo demo

test: $(VENV)/installed-check system
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal

check: $(VENV)/installed-check system
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell
	command -v mandoc >/dev/null
	mandoc -T lint -W style man/* 2>/dev/null | { ! grep -v 'manual not found'; }

torture: $(VENV)/installed-check system
	@$(BIN)/python -m pip install --quiet --editable '.[torture]'
	@PYTHONPATH=tests $(BIN)/python -m torture

# What cannot be installed is "not run" in the table.
bench: $(VENV)/installed-check
	-@$(SYSTEM)
	-@missing=; for need in $(BENCHED); do \
		command -v $${need%:*} >/dev/null || missing="$$missing $${need#*:}"; done; \
		test -z "$$missing" || $(SYSTEM) $$missing
	-@$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@for bench in tests/bench/bench_*.py; do \
		echo "$$bench"; $(BIN)/python "$$bench" || exit 1; done
	$(BIN)/python tests/bench/compare.py

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .hypothesis build demo *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

system:
	@$(SYSTEM)

$(VENV)/installed: $(VENV)/made setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-check: $(VENV)/made setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[check]'
	@touch $@ $(VENV)/installed

$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is missing: install it, or name it" \
		"with make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip' 2>/dev/null || $(SYSTEM) python3-venv
	"$(PYTHON)" -m venv $(VENV)
	@touch $@
