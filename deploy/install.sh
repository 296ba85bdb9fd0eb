#!/usr/bin/env bash
# Creates the virtual environment in $1 with everything that serves, trains and tests on a CPU.
set -euo pipefail
venv=${1:-.venv}
python=${PYTHON:-python3}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
# torch first and by itself: a CPU wheel, where the index has one, must not be replaced by a CUDA build of a later step
"${pip[@]}" install -q "$(grep '^torch==' constraints.txt)"
"${pip[@]}" install -q -c constraints.txt -e '.[cpu,train,otel,dev]'
# vLLM's CPU build names torchvision, torchaudio and torchcodec, of which an index may only have CUDA builds. One that
# does not match this torch breaks `import transformers`; nothing here needs them.
for package in torchvision torchaudio torchcodec; do
  if "${pip[@]}" show -q "$package" 2>/dev/null && ! "$venv/bin/python" -c "import $package" 2>/dev/null; then
    "${pip[@]}" uninstall -q -y "$package"
  fi
done
"$venv/bin/python" -c 'import torch, transformers, vllm' || { echo "the installation is broken: see above" >&2; exit 1; }
