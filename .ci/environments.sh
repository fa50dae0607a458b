# What .ci/run and .ci/release share: virtual environments in a temporary folder, removed at the end, and their steps.
# Needs Python 3.11 or newer and a package index, nothing else.
root=$PWD
work=$(mktemp -d)
# Also after a failure: what runs in the background ends, with the processes that it has started.
clean_up() {
  for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean_up EXIT
export TF_CPP_MIN_LOG_LEVEL=2 PIP_DISABLE_PIP_VERSION_CHECK=1
# uv is ten times as fast as pip. It reads none of pip's settings: where wheels lie beside the index it is told.
export UV_FIND_LINKS=${PIP_FIND_LINKS-} UV_CONCURRENT_INSTALLS=2
python3 -m venv "$work/uv"
"$work/uv/bin/pip" install -q uv
# Every test process imports TensorFlow: from bytecode in a third of the time.
unset PYTHONDONTWRITEBYTECODE

newest="tensorflow==2.21.* keras==3.15.*"

step() { printf '\n== %s (%d s so far)\n' "$1" "$SECONDS"; }

# Makes a new virtual environment called $1, with the packages that follow.
environment() {
  "$work/uv/bin/uv" venv -q --seed --python "$(command -v python3)" "$work/$1"
  [ $# -eq 1 ] || "$work/uv/bin/uv" pip install -q --compile-bytecode --python "$work/$1/bin/python" "${@:2}"
}

enter() {
  deactivate 2>/dev/null || true
  . "$work/$1/bin/activate"
}

# The names of all extras of pyproject.toml, with commas between. A variable: what fails within an argument goes unnoticed.
extras=$(python3 -c '
import tomllib
print(",".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]))')
