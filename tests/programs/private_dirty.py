"""What a process has written to, of memory that is its own: the truth of programs that copy by writing.

SPDX-License-Identifier: Apache-2.0
"""


def private_dirty():
    """Of private mappings: a shared one that only we have counts as private there, too."""
    total, private = 0, False
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as f:
        for line in f:
            words = line.split()
            if not words[0].endswith(":"):
                private = words[1].endswith("p")
            elif private and words[0] == "Private_Dirty:":
                total += int(words[1]) * 1024
    return total
