#!/usr/bin/env bash
# Make room on GitHub's hosted runner for a CUDA build: NVIDIA's devel image alone is 9 GB unpacked. Removes what the runner
# brings for other people's builds, and refuses to run anywhere else.
set -euo pipefail

if [ "${RUNNER_ENVIRONMENT:-}" != github-hosted ]; then
    echo "this is no hosted runner of GitHub's: nothing is removed" >&2
    exit 1
fi
sudo rm -rf /usr/local/lib/android /usr/share/dotnet /usr/share/swift /opt/ghc /usr/local/.ghcup /opt/hostedtoolcache/CodeQL
df -h /
