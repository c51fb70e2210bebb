#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Make configure from a checkout. Needs autoconf, automake and pkg-config (contrib/install-deps installs them).
set -eu
cd "$(dirname "$0")"
exec autoreconf --install --force
