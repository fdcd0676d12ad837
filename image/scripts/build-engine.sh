#!/usr/bin/env bash
# The engine stage of the Containerfile: a wheel from /engine-cache, or a build, unpacked into /out. A wheel compiled here
# is copied to /out/wheel, for the cache of the machine that builds the image.
# Reads VARIANT, CUDA_ARCHITECTURES and CUDA_LIBRARIES, which the Containerfile declares.
set -euo pipefail

if [ -s /run/secrets/pip-cert ]; then
    export PIP_CERT=/run/secrets/pip-cert
fi
arguments=(--variant "${VARIANT:?}")
[ -z "${CUDA_ARCHITECTURES:-}" ] || arguments+=(--cuda-architectures "$CUDA_ARCHITECTURES")

key=$(python3 image/engine/build.py "${arguments[@]}" --print-key)
mkdir -p /out/wheel
compiled=
if [ ! -d "/engine-cache/$key" ]; then
    compiled=yes
    echo "$key is not in the cache; compiling it"
    apt-get update -qq
    # llama.cpp's build reads its commit from git.
    apt-get install -y -qq --no-install-recommends cmake g++ git ninja-build python3-pip python3-venv
fi
wheel=$(python3 image/engine/build.py "${arguments[@]}" --cache /engine-cache --print-path)
[ -z "$compiled" ] || cp -a "/engine-cache/$key" /out/wheel/

[ -z "${CUDA_LIBRARIES:-}" ] || arguments+=(--cuda-libraries "$CUDA_LIBRARIES")
python3 image/scripts/stage_engine.py "${arguments[@]}" --wheel "$wheel" --out /out
