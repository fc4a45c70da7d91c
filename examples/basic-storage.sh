#!/bin/sh
# Stores what a worker made, from the shell: files, a command's output, metadata; then reads one back.
#
# persist-result prints the key of each result on standard output and everything else on standard error. It exits with 0
# once the result is safe, else with 1 (stored nowhere), 2 (wrong usage) or 3 (stored, but not where --require says);
# `set -e` ends this script then.
set -eu

# Stands for the work: anything that leaves files in the current folder.
printf '{"result": "success", "orders": 3}\n' > output.json
printf 'order,total\n1,9.50\n2,12.00\n3,7.25\n' > totals.csv

# A file; the result is named like it.
persist-result output.json

# Under another name and with metadata, which can be any JSON object.
persist-result --name final-report.csv --metadata '{"status": "complete", "version": "1.0"}' totals.csv

# Metadata that a program wrote comes from a file, so that nothing in it needs quoting for the shell.
printf '{"status": "complete", "note": "it'\''s \\"final\\""}\n' > about.json
persist-result --name annotated.csv --metadata @about.json totals.csv

# What a command prints, with no file in between. A shell does not notice when the command before a pipe fails: where it
# may, write to a file first and store that.
sort -t, -k2 -n totals.csv | persist-result --name sorted.csv -

# The key is how anybody finds the result again, now and when the worker is gone.
wc -l totals.csv > lines.txt
key=$(persist-result lines.txt)
persist-result --retrieve "$key" > read-back.txt
cmp lines.txt read-back.txt

# All that this task has stored on this machine.
persist-result --list >&2
