"""`import torch`: a million allocations, nearly all from stacks never seen before.

SPDX-License-Identifier: Apache-2.0
"""

import subprocess

import measure
import settings
import tools
from table import Row, figure

MODES = ("all", "folded", "sample", "objects")
PEERS = ("heaptrack", "memray", "memray native")


def load(tool, script, cwd):
    def one():
        done, trace, left = tools.run(tool, [settings.PYTHON, script], cwd)
        return {"wall": done.wall, "cpu": done.cpu, "left": left if trace or left else None}
    return one


def has_torch():
    return subprocess.run([settings.PYTHON, "-c", "import torch"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


def measure_part(seconds):
    if not has_torch():
        return [Row("import", "import torch", "", "", None,
                    note="no PyTorch here (scripts/install-deps bench)")]
    with measure.Folder() as cwd:
        script = f"{cwd}/import_torch.py"
        with open(script, "w", encoding="utf-8") as f:
            f.write("import torch\n")
        names = ("untraced", *MODES, *PEERS)
        series = measure.Series({n: load(n, script, cwd) for n in names}, seconds, PEERS)
    rows = [figure("import", "import torch: CPU", "untraced", "s",
                   series.values("untraced", lambda r: r["cpu"]))]
    for tool in names[1:]:
        note = series.why.get(tool, "")
        full = tool in ("all", "folded")
        for what in ("CPU", "wall"):
            rows.append(figure("import", f"import torch: {what}", tool, "x",
                               series.pairs(tool, "untraced", lambda a, b: a[what.lower()] / b[what.lower()]),
                               "import.ratio" if full and what == "CPU" else None, note, ratio=True))
        rows.append(figure("import", "import torch: trace", tool, "MB",
                           series.values(tool, lambda r: r["left"] and r["left"] / 1e6),
                           "import.size" if full else None, note))
    return rows
