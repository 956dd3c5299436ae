#!/bin/sh
# Make the environment of a release: the folder .venv in it, with the locked packages and the command `tableside`.
#
# Usage: sh deploy/environment.sh FOLDER     FOLDER has the code. PYTHON names the interpreter (default: python3).
# The locked files name every distribution with its hash, so pip resolves nothing and compiles nothing.
set -eu
cd "$1"
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || {
    echo "tableside: $python is not Python 3.11 to 3.14; name one, for example: PYTHON=python3.12 sh $0 $1" >&2
    exit 1
}
"$python" -m venv .venv
locked="install --quiet --disable-pip-version-check --no-cache-dir --require-hashes --no-deps --only-binary :all:"
# shellcheck disable=SC2086 # several words
.venv/bin/python -m pip $locked -r requirements/installer.txt
# shellcheck disable=SC2086
.venv/bin/python -m pip $locked -r requirements/base.txt
# The packages for traces (docs/guide/trace.md) are small, and a start with tracing.endpoint needs them.
# shellcheck disable=SC2086
.venv/bin/python -m pip $locked -r requirements/tracing.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-build-isolation -e .
# Those who run the code cannot write into its folders, so it is compiled now.
.venv/bin/python -m compileall -q app blueprints training client wsgi.py gunicorn.conf.py
