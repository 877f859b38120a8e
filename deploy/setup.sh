#!/bin/sh
# From nothing but Python to everything installed in .venv, each package checked against its hash.
# Safe to repeat, quick when nothing changed, and a run that broke off is taken up where it was.
#
#   sh deploy/setup.sh          PyTorch as PyPI has it: on Linux that is the CUDA build
#   sh deploy/setup.sh cpu      PyTorch's CPU build
set -eu
cd "$(dirname "$0")/.."

venv=.venv
bin=$venv/bin
done_file=$venv/.installed

say() { printf '%s\n' "$*"; }

fail() {
  printf '\n%s\n' "$@" >&2
  exit 1
}

# The choice of the last time holds until another is made.
torch=${1:-}
[ -n "$torch" ] || torch=$(sed -n 's/^torch //p' "$done_file" 2>/dev/null || true)
torch=${torch:-pypi}
case $torch in
  pypi | cpu) ;;
  *) fail "TORCH=$torch is unknown: say TORCH=cpu, or TORCH=pypi for PyPI's build." ;;
esac

wanted=$(
  printf 'torch %s\n' "$torch"
  cksum requirements.lock requirements-uv.txt pyproject.toml deploy/setup.sh deploy/cpu_lock.py
)
if [ -x "$bin/hybrid-memory" ] && [ "$(cat "$done_file" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi
rm -f "$done_file"

python_that() {  # prints the first Python that the given program accepts
  for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$name" -c "$1" >/dev/null 2>&1; then
      printf '%s' "$name"
      return
    fi
  done
  return 1
}

new_enough='import sys; assert (3, 11) <= sys.version_info < (3, 15)'
if ! "$bin/python" -c "$new_enough" >/dev/null 2>&1; then
  python=$(python_that "$new_enough") || fail \
    "Hybrid Memory needs Python 3.11 to 3.14, and found none." \
    "Install one (Debian, Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3;" \
    "macOS: brew install python), or name one: make setup PYTHON=/path/to/python3"
  python=$(python_that "$new_enough; import ensurepip, venv") || fail \
    "$python has no venv. On Debian and Ubuntu: apt install python3-venv" \
    "(or the package of its version, as python3.12-venv), then run this again."
  say "1/4  $("$python" --version) in $venv"
  "$python" -m venv --clear "$venv"
fi

"$bin/python" -m pip --version >/dev/null 2>&1 || "$bin/python" -m ensurepip >/dev/null
if ! "$bin/uv" --version 2>/dev/null | grep -qF "uv $(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements-uv.txt) "; then
  say "2/4  uv, which installs the rest"
  "$bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r requirements-uv.txt
fi

say "3/4  the packages of requirements.lock, each checked against its hash"
if [ "$torch" = pypi ] && [ "$(uname -s)" = Linux ] && [ ! -d "$(echo $venv/lib/python3*/site-packages/torch)" ]; then
  say "     PyPI's PyTorch for Linux is the CUDA build: in all 3.4 GB to download, 6.8 GB on disk."
  say "     No NVIDIA GPU? Ctrl-C now, and \`make setup TORCH=cpu\` leaves 2.4 and 4.2 GB of that away."
fi
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-120}"
again="Installing broke off; what was downloaded is kept. Mend the cause and run it again."
if [ "$torch" = cpu ]; then
  "$bin/python" deploy/cpu_lock.py requirements.lock >"$venv/requirements-cpu.txt"
  "$bin/uv" pip sync --python "$bin/python" --torch-backend cpu "$venv/requirements-cpu.txt" || fail "$again"
else
  "$bin/uv" pip sync --python "$bin/python" --require-hashes requirements.lock || fail "$again"
fi

say "4/4  Hybrid Memory itself"
"$bin/uv" pip install --quiet --python "$bin/python" --no-deps --no-build-isolation -e . || fail "$again"
printf '%s\n' "$wanted" >"$done_file"
say "Installed. \`$bin/hybrid-memory --help\` says what there is."
