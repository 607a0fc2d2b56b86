#!/bin/bash
# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
#
# Runs a CUDA compiler's command line and fails when ptxas says C7510 (wgmma serialised), which it calls information.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" 2>"$log"
status=$?
cat "$log" >&2
if grep -q C7510 "$log"; then
  echo "error: ptxas serialises wgmma.mma_async (C7510)" >&2
  exit 1
fi
exit $status
