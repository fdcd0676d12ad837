#!/usr/bin/env bash
# Free disk space on GitHub's hosted runner for a CUDA build: NVIDIA's devel image alone is 9 GB unpacked. Removes
# preinstalled tools of other languages, and refuses to run anywhere else.
set -euo pipefail

if [ "${RUNNER_ENVIRONMENT:-}" != github-hosted ]; then
    echo "not a GitHub-hosted runner: nothing was removed" >&2
    exit 1
fi
sudo rm -rf /usr/local/lib/android /usr/share/dotnet /usr/share/swift /opt/ghc /usr/local/.ghcup /opt/hostedtoolcache/CodeQL
df -h /
