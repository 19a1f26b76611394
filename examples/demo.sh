#!/bin/bash
# Sorts a real text on one EC2 node and two Lambda workers, all on this machine, and compares the
# result with `sort`. Run by `make demo`; the files stay in .build/demo.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
folder=.build/demo
key="oneliners/outputs/sort.sh:1M.txt:2:leashstdout.txt"
mkdir -p "$folder"

# Text that every machine has: the sources of Python's own library, about 4 MB.
if [[ ! -s $folder/input.txt ]]; then
    library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    find "$library" -maxdepth 2 -name '*.py' -not -path '*-packages*' -print0 | LC_ALL=C sort -z |
        xargs -0 cat >"$folder/all.txt"
    head -c 4000000 "$folder/all.txt" >"$folder/input.txt"
    rm "$folder/all.txt"
fi
printf 'input: %s lines, %s bytes of Python sources\n' \
    "$(wc -l <"$folder/input.txt")" "$(wc -c <"$folder/input.txt")"

.venv/bin/punch run --local examples/sort-width2 \
    --put "oneliners/inputs/1M.txt=$folder/input.txt" \
    --get "$key=$folder/output.txt"

LC_ALL=C.UTF-8 sort "$folder/input.txt" >"$folder/expected.txt"
if cmp "$folder/expected.txt" "$folder/output.txt"; then
    echo "the result is byte for byte what sort gives: $folder/output.txt"
else
    echo "the result differs from what sort gives: compare $folder/{expected,output}.txt" >&2
    exit 1
fi
