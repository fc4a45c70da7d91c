#!/bin/sh
# Gathers several files in a folder and stores it as one result, a .tar.gz.
set -eu

# Stands for the work: three files, wherever they come from.
printf '{"result": "success", "samples": 4}\n' > output.json
printf '# Report\n\nFour samples, none missing.\n' > report.md
printf 'sample,value\n1,4\n2,8\n3,15\n4,16\n' > data.csv

# A fresh folder: what an earlier attempt left in it must not get in between.
rm -rf final-results
mkdir -p final-results/tables
cp output.json report.md final-results/
cp data.csv final-results/tables/

# One result for the whole folder. It is packed while it is sent, so it can be as big as the disk, and its name gets
# .tar.gz. Links stay links; a file that changes while it is read is reported on standard error and does not stop the rest.
count=$(find final-results -type f | wc -l)
key=$(persist-result --name final-results --metadata "{\"files\": $((count))}" final-results)

# It holds what was put in: the same file names, under the folder's own.
persist-result --retrieve "$key" | tar -tzf - >&2
echo "$key"
