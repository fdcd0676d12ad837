#!/usr/bin/env bash
# Open (or update) a pull request with the digests that `make pin-bases` wrote. For weekly.yml: needs gh.
set -euo pipefail
cd "$(dirname "$0")/../.."

branch=pin-bases
if git diff --quiet -- image/variants.yaml; then
    echo "every base image is up to date"
    exit 0
fi
git config user.name "github-actions[bot]"
git config user.email "41898282+github-actions[bot]@users.noreply.github.com"
git checkout -B "$branch"
git commit -m "Base images: the digests behind this week's tags" -- image/variants.yaml
git push --force origin "$branch"
gh pr view "$branch" --json state --jq .state 2>/dev/null | grep -q OPEN ||
    gh pr create --head "$branch" --title "Base images: this week's digests" \
        --body "Written by \`make pin-bases\`; weekly.yml has built and tested every variant on these bases."
