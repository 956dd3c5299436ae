#!/bin/sh
# Run the unit and blueprint tests with the lowest versions that requirements/base.in accepts. `make test-oldest` calls it.
#
# The versions are resolved anew each time, in build/oldest, and the tools of the tests are the newest ones.
set -eu
cd "$(dirname "$0")/.."
here=build/oldest
uv=.venv/bin/uv
mkdir -p "$here"
"$uv" pip compile --quiet requirements/base.in --resolution lowest-direct --only-binary :all: --no-header --no-annotate \
    -o "$here/lowest.txt"
sed -e '/^-/d' requirements/dev.in >"$here/tools.in"
sed -e '/^-/d' requirements/onnx.in >>"$here/tools.in"
"$uv" venv --quiet --clear --python .venv/bin/python "$here/environment"
"$uv" pip install --quiet --python "$here/environment/bin/python" -c "$here/lowest.txt" -r requirements/base.in -r "$here/tools.in"
sed -e 's/^/lowest: /' "$here/lowest.txt"
PYTHONPATH=src exec "$here/environment/bin/python" -m pytest tests/unit tests/blueprints -n 2 -m "not slow"
