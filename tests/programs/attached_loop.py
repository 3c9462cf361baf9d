"""A Python loop with a second thread, to attach to: ends at SIGTERM with 37 if all it computed was right.

SPDX-License-Identifier: Apache-2.0
"""

import os
import signal
import threading

go = True


def stop(*_):
    global go
    go = False


def work(out):
    while go:
        out.add(sum(len(str(i)) for i in range(500)))
        out.add(sum(map(len, [bytes(3000) for _ in range(20)])))
        out.add(len({i: [i] for i in range(300)}))


signal.signal(signal.SIGTERM, stop)
results = set(), set()
thread = threading.Thread(target=work, args=(results[0],))
thread.start()
print("ready", flush=True)
work(results[1])
thread.join()
os._exit(37 if results[0] | results[1] == {1390, 60000, 300} else 1)
