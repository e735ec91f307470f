# SPDX-License-Identifier: LGPL-2.1-or-later
# The questions to the product, on the running kernel; with --live-pmem in /out/live-pmem.
sed -n 's/^PAGE .* present=1 pfn=\(0x[0-9a-f]*\).*/\1/p' "$truth"/final.*.txt | sort -u | awk 'NR % 8 == 1' > /out/pages
export PYTHONPATH=/opt/product PYTHONDONTWRITEBYTECODE=1
python3 /lab/ask.py /lab/questions /out/pages /out/live -k --debug-directory /debug
python3 /lab/ask.py /lab/questions /out/pages /out/live-pmem -k --debug-directory /debug --live-pmem
