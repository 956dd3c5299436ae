#!/bin/sh
# Run the unit and blueprint tests with the lowest versions that requirements/base.in accepts. `make test-oldest` calls it.
#
# The versions are resolved anew each time, in build/oldest, and the tools of the tests are the newest ones. Words are passed to
# pytest. Left out are the tests that compare what is installed with what is locked, and those of a tool that needs a newer click.
set -eu
cd "$(dirname "$0")/.."
here=$PWD/build/oldest
uv=.venv/bin/uv
mkdir -p "$here"
"$uv" pip compile --quiet requirements/base.in --resolution lowest-direct --only-binary :all: --no-header --no-annotate \
    -o "$here/lowest.txt"
cat requirements/dev.in requirements/onnx.in requirements/tracing.in | sed -e '/^-/d' >"$here/tools.in"
"$uv" venv --quiet --clear --seed --python .venv/bin/python "$here/environment"
"$uv" pip install --quiet --python "$here/environment/bin/python" -c "$here/lowest.txt" -r requirements/base.in -r "$here/tools.in"
sed -e 's/^/lowest: /' "$here/lowest.txt"
[ $# -gt 0 ] || set -- tests/unit tests/blueprints -n 2 -m "not slow" --ignore tests/unit/test_lock.py \
    --ignore tests/unit/test_deploy_schemas.py
PYTHONPATH=$PWD/src exec "$here/environment/bin/python" -m pytest "$@"
