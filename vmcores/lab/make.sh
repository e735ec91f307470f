#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make.sh [WORK]: rebuild every sample of vmcores/ from nothing, in WORK (build/vmcores by default).
# Debian 12, root, no KVM needed; the packages that each machine's lab needs stand in vmcores/README.md.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$here/../../build/vmcores}
for machine in x86_64 ppc64le arm64; do
	[ ! -x "$here/$machine/make.sh" ] || "$here/$machine/make.sh" "$work/$machine"
done
