"""Puts the table and its conditions into docs/PERFORMANCE.md, between its two marks.

SPDX-License-Identifier: Apache-2.0
"""

import table

BEGIN, END = "<!-- bench: written by scripts/bench --write -->", "<!-- bench end -->"


def write(path, said, rows):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"bench: {path} lacks the marks '{BEGIN}' and '{END}'")
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join([head + BEGIN, "", *said, "", table.markdown(rows), "", END]) + tail)
