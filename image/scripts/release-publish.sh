#!/usr/bin/env bash
# Create the GitHub release of $REF with build/release-notes.md and the SBOMs. For release.yml: needs gh and GH_TOKEN.
set -euo pipefail
cd "$(dirname "$0")/../.."

tag=${REF:?}
tag=${tag#refs/tags/}
options=(--verify-tag --title "$tag" --notes-file build/release-notes.md)
case $tag in
*-*) options+=(--prerelease) ;;
esac
gh release create "$tag" "${options[@]}" build/sbom/*.spdx.json
