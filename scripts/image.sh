#!/usr/bin/env bash
# Builds the image: scripts/image.sh TAG [ARGUMENT OF docker build]…
# New Docker clients build with a plugin. Where it is missing, an older client that needs none may stand beside.
set -euo pipefail
cd "$(dirname "$0")/.."

client=docker
docker buildx version >/dev/null 2>&1 || client=/usr/bin/docker
DOCKER_BUILDKIT=1 exec "$client" build --tag "$@" .
