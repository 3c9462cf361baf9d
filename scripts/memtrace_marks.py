"""Marks for memtrace: say from Python where the program is.

    import memtrace_marks as mt
    with mt.phase("train"):
        for i, batch in enumerate(loader):
            mt.step(i)

One file, no build step. Without the shim every function does nothing.

SPDX-License-Identifier: Apache-2.0
"""

import ctypes as _ctypes

__all__ = ["phase", "step", "mark", "pause", "resume", "active"]


def _find(name, *argtypes):
    try:
        function = getattr(_ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    function.argtypes = argtypes
    function.restype = None
    return function


_phase = _find("memtrace_phase", _ctypes.c_char_p)
_step = _find("memtrace_step", _ctypes.c_uint64)
_mark = _find("memtrace_mark", _ctypes.c_char_p)
_pause = _find("memtrace_pause")
_resume = _find("memtrace_resume")


def _text(value):
    return str(value).encode("utf-8", "replace")


def active():
    """Is the shim loaded in this process?"""
    return _mark is not None


class _Phase:
    """Returned by phase(): as a context manager it ends the phase it began."""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if _phase:
            _phase(None)
        return False


def phase(name):
    """A phase begins, and the one before it ends. Use it in a `with` to end it as well."""
    if _phase:
        _phase(_text(name))
    return _Phase()


def step(n):
    """Step n (a batch, an iteration) begins."""
    if _step:
        _step(int(n))


def mark(label):
    """A point on the timeline."""
    if _mark:
        _mark(_text(label))


def pause():
    """Nothing of this process is recorded until resume(), except frees of known blocks."""
    if _pause:
        _pause()


def resume():
    """Recording goes on."""
    if _resume:
        _resume()
