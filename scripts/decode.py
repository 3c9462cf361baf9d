#!/usr/bin/env python3
"""An independent reader of memtrace traces: written from docs/FORMAT.md, not from the code.

    decode.py [--json | --stats] TRACE

Prints one JSON object per record, entry of a nursery and cell, chunk by chunk in file order (--json,
the default), or counts per record kind and per process (--stats). Numbers are as in the trace: times absolute, in units of
2^time_shift ticks. Texts may hold any bytes: each is shown as the character of that number. A
damaged trace is read as far as it goes; what is wrong is said on standard error and the exit status
is 1. Standard library only, Python 3.8 or newer.

SPDX-License-Identifier: Apache-2.0
"""

import json
import struct
import sys

# Section 6 of docs/FORMAT.md: name, fields in wire order. "N?0" is optional under tag bit 0.
HOT = {
    0x80: ("ALLOC", "time:T addr:A size:U native:N?0 python:P?1 kind:U?2"),
    0x90: ("FREE", "time:T addr:A kind:U?2"),
    0xA0: ("REALLOC", "time:T old_addr:A took:U addr:A size:U native:N?0 python:P?1 kind:U?2"),
    0xB0: ("NODE", "id:D?0 parent:R?1 frame:C"),
    0xC0: ("SURVIVOR", "time:B addr:A size:U native:N?0 python:P?1 kind:U?2"),
}
FRAMED = {
    0x01: ("PROCESS", "time:T pid:U ppid:U start:U reason:U parent:U fork_time:U node_base:U "
                      "frame_base:U module_base:U pynode_base:U code_base:U string_base:U flags:U"),
    0x02: ("CLOCK", "ticks:U monotonic_ns:U realtime_ns:U"),
    0x03: ("FACT", "key:STR value:STR"),
    0x04: ("THREAD", "time:T tid:U name:STR"),
    0x05: ("THREAD_END", "time:T tid:U"),
    0x08: ("MODULE", "time:T id:U bias:U start:U end:U inode:U path:STR build_id:STR"),
    0x09: ("MODULE_GONE", "time:T id:U"),
    0x0A: ("FRAME", "id:U module:U offset:U flags:U"),
    0x0B: ("STRING", "id:U text:STR"),
    0x0C: ("CODE", "id:U filename:U name:U first_line:U kind:U lines:STR"),
    0x0D: ("PYNODE", "id:U parent:U code:U offset:U flags:U"),
    0x10: ("MAP", "time:T addr:U size:U kind:U prot:U flags:U dev:U inode:U offset:U native:N "
                  "python:P"),
    0x11: ("UNMAP", "time:T addr:U size:U"),
    0x12: ("REMAP", "time:T old_addr:U old_size:U took:U addr:U size:U flags:U native:N python:P"),
    0x13: ("BREAK", "time:T old_addr:U addr:U kind:U native:N python:P"),
    0x14: ("OBJECT", "time:T op:U dev:U inode:U size:U name:STR native:N python:P"),
    0x18: ("FORK", "time:T pid:U flags:U native:N python:P"),
    0x19: ("EXEC", "time:T pid:U traced:U path:STR"),
    0x1A: ("EXEC_FAILED", "time:T pid:U error:U"),
    0x1B: ("SPAWN", "time:T pid:U traced:U path:STR"),
    0x1C: ("EXIT", "time:T kind:U code:U"),
    0x1D: ("WAIT", "time:T pid:U signal:U code:U"),
    0x20: ("SAMPLE", "time:T pid:U rss:U anon:U file:U shmem:U pss:U pss_anon:U uss:U swap:U "
                     "minflt:U majflt:U cgroup_usage:U cgroup_limit:U oom_kills:U"),
    0x21: ("MARK", "time:T kind:U value:U label:STR"),
    0x22: ("NOTE", "time:T text:STR"),
    0x28: ("FOLD", "time:T kind:U count:U bytes:U brief:U largest:U native:N python:P"),
    0x29: ("YOUNG", "time:T bytes:U most:U since:U"),
    0x2a: ("SAMPLING", "time:T mean_bytes:U"),
    0x30: ("SCAN", "time:T id:U pid:U reason:U page_bytes:U minflt:U rss:U brk:U scope:U part:U"),
    0x31: ("RANGE", "time:T scan:U start:U pages:U prot:U flags:U dev:U inode:U offset:U "
                    "name:STR runs:STR"),
    0x32: ("SCAN_END", "time:T id:U complete:U cpu_ns:U"),
    0x40: ("GPU_TAKE", "time:T api:STR kind:U addr:U size:U device:U context:U cu_stream:U pool:U flags:U native:N python:P"),
    0x41: ("GPU_GIVE", "time:T api:STR kind:U addr:U"),
    0x42: ("GPU_PIN", "time:T addr:U size:U native:N python:P"),
    0x43: ("GPU_VMM", "time:T op:U handle:U addr:U size:U offset:U device:U native:N python:P"),
    0x44: ("GPU_POOL", "time:T op:U pool:U device:U reserved:U used:U"),
    0x45: ("GPU_DEVICE", "time:T device:U uuid:STR name:STR total:U"),
    0x46: ("GPU_LEVEL", "time:T device:U allocated:U reserved:U peak_allocated:U peak_reserved:U flags:U"),
    0x47: ("GPU_OOM", "time:T device:U size:U allocated:U reserved:U native:N python:P"),
    0x48: ("GPU_USED", "time:T device:U own:U all:U"),
    0x49: ("GPU_RESET", "time:T device:U context:U"),
    0x4a: ("GPU_HEAP", "time:T addr:U size:U name:STR"),
    0x4e: ("GPU_SEEN", "time:T asked:U took:U pid:U uuid:STR own:U all:U"),
    0x34: ("DESCRIPTORS", "time:T pid:U open:U left_out:U files:STR"),
    0x35: ("LAUNCH", "time:T python:P"),
    0x37: ("TOUCH", "time:T addr:U weight:U native:N python:P"),
    0x38: ("ARENA", "time:T scan:U start:U end:U arena:U top:U"),
    0x39: ("STACK", "time:T scan:U tid:U start:U end:U"),
    0x54: ("OLDER", "time:T text:STR"),
    0x3b: ("TOOL", "time:T scan:U start:U end:U"),
    0x3a: ("POOLS", "time:T scan:U start:U size:U pool_bytes:U pools:STR"),
    0x50: ("BEFORE", "time:T took_ns:U heap_used:U heap_free:U heap_mapped:U heap_arena:U anon:U "
                     "swap:U file:U shmem:U brk:U stacks:U libraries:U"),
}
# Section 3.7: what chunks of kind 1 and 2 hold.
NURSERY = struct.Struct("<IIQ64sQQQQ16x")
ENTRY = struct.Struct("<QQQII")
CELL = struct.Struct("<IIIIQQQQQQ")
NURSERY_CHUNK, CELLS_CHUNK = 1, 2
MAX_BYTES = 1 << 56
MASK = (1 << 64) - 1
CHUNK = struct.Struct("<IIQIIIIQQIIQ")
CHUNK_MAGIC = 0x3143544D
MAGIC_BYTES = struct.pack("<I", CHUNK_MAGIC)
MAX_UNITS = 8192


class Bad(Exception):
    """Bytes that are not what section 2 says."""


def fields(text):
    """[(name, type, optional bit or None)]"""
    out = []
    for item in text.split():
        name, kind = item.split(":")
        kind, _, bit = kind.partition("?")
        out.append((name, kind, int(bit) if bit else None))
    return out


HOT = {tag: (name, fields(text)) for tag, (name, text) in HOT.items()}
FRAMED = {tag: (name, fields(text)) for tag, (name, text) in FRAMED.items()}


def unzigzag(v):
    return (v >> 1) ^ -(v & 1)


class Payload:
    """Bytes of a chunk with the state of section 2.2."""

    def __init__(self, data, base_time):
        self.data, self.at, self.end = data, 0, len(data)
        self.state = {"T": base_time, "A": 0, "N": 0, "P": 0, "D": 0, "C": 0}

    def varint(self, end):
        v = shift = 0
        while self.at < end and shift < 64:
            byte = self.data[self.at]
            self.at += 1
            v |= (byte & 0x7F) << shift
            if not byte & 0x80:
                if v > MASK:
                    raise Bad("a number has more than 64 bits")
                return v
            shift += 7
        raise Bad("a number is cut off" if self.at >= end else "a number has more than 64 bits")

    def string(self, end):
        n = self.varint(end)
        if n > end - self.at:
            raise Bad("a text is cut off")
        self.at += n
        return self.data[self.at - n:self.at].decode("latin-1")

    def hot(self, kind):
        s, v = self.state, self.varint(self.end)
        if kind == "T":
            s["T"] = (s["T"] + v) & MASK
        elif kind == "B":
            return (s["T"] + unzigzag(v)) & MASK
        elif kind == "A":
            s["A"] = (s["A"] + unzigzag(v >> 1) * (1 if v & 1 else 16)) & MASK
        elif kind in "NPC":
            s[kind] = (s[kind] + unzigzag(v)) & MASK
        elif kind == "D":
            s["D"] = (s["D"] + 1 + unzigzag(v)) & MASK
        elif kind == "R":
            return (s["D"] - 1 - unzigzag(v)) & MASK
        else:
            return v
        return s[kind]

    def absent(self, kind):
        if kind in "NP":
            return self.state[kind]
        if kind == "D":
            self.state["D"] = (self.state["D"] + 1) & MASK
            return self.state["D"]
        return (self.state["D"] - 1) & MASK if kind == "R" else 0

    def framed(self, kind, end):
        if self.at == end:  # written by an older version
            return "" if kind == "STR" else 0
        if kind == "STR":
            return self.string(end)
        v = self.varint(end)
        return (self.state[kind] + unzigzag(v)) & MASK if kind in "TNP" else v

    def record(self):
        """(tag, name, {field: value}); name None for a framed record that is not known."""
        tag = self.data[self.at]
        self.at += 1
        if tag & 0x80:
            if tag & 0xF0 not in HOT:
                raise Bad(f"no record has the tag 0x{tag:02x}")
            name, spec = HOT[tag & 0xF0]
            return tag & 0xF0, name, {
                field: self.hot(kind) if bit is None or tag >> bit & 1 else self.absent(kind)
                for field, kind, bit in spec}
        if not tag:
            raise Bad("tag 0")
        end = self.varint(self.end)
        end += self.at
        if end > self.end:
            raise Bad("a record is cut off")
        name, spec = FRAMED.get(tag, (None, []))
        values = {field: self.framed(kind, end) for field, kind, _ in spec}
        self.at = end
        return tag, name, values


def kind_is_known(kind):
    return kind & ~0x1F == 0 and kind & 15 < 8


def cell_at(data, at):
    """{field: value}, None for one that was never counted in; raises Bad."""
    native, python, kind, _, count, size, brief, largest, first, last = CELL.unpack_from(data, at)
    if not count:
        return None
    if (not kind_is_known(kind) or max(count, size) > MAX_BYTES or brief > count or
            largest > size or first > last):
        raise Bad("a cell's values can't be true")
    return {"native": native, "python": python, "kind": kind, "count": count, "bytes": size,
            "brief": brief, "largest": largest, "first": first, "last": last}


def nursery_rows(data):
    """(name, fields) of a nursery; Bad instances for what can't be true."""
    if len(data) < NURSERY.size:
        yield Bad("a nursery's head is cut off")
        return
    entries, fold_entry, fold_cell, fold, time, size, most, since = NURSERY.unpack_from(data)
    there = min(entries, (len(data) - NURSERY.size) // ENTRY.size)
    if most > MAX_BYTES or size > most:
        yield Bad("a nursery's peak can't be true")
        size = most = 0
    yield "NURSERY", {"entries": entries, "fold_entry": fold_entry, "fold_cell": fold_cell,
                      "young_time": time, "young_bytes": size, "young_most": most,
                      "young_since": since}
    if there < entries:
        yield Bad(f"{entries - there} entries of a nursery are missing")
    if fold_entry:
        try:
            cell = cell_at(fold, 0)
        except Bad:
            cell = None
        if cell and fold_entry <= there:
            yield "FOLDING", cell
        else:
            yield Bad("a pending fold can't be true")
    for i in range(there):
        addr, time, size, native, python = ENTRY.unpack_from(data, NURSERY.size + i * ENTRY.size)
        if not addr:
            continue
        kind, addr = addr >> 56, addr & ((1 << 56) - 1)
        if not kind_is_known(kind) or not addr or size > MAX_BYTES:
            yield Bad(f"entry {i} of a nursery can't be true")
            continue
        yield "YOUNG_BLOCK", {"index": i, "time": time, "addr": addr, "size": size,
                              "native": native, "python": python, "kind": kind}


def cell_rows(data):
    for at in range(0, len(data) - CELL.size + 1, CELL.size):
        try:
            cell = cell_at(data, at)
        except Bad as e:
            yield e
            continue
        if cell:
            yield "CELL", cell
    if len(data) % CELL.size:
        yield Bad("a cell is cut off")


def fnv1a(data):
    h = 2166136261
    for byte in data:
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    return h


class Chunk:
    """A chunk header (section 1.3) and where its bytes end (1.5, step 2)."""

    def __init__(self, trace, at):
        (magic, self.units, own, self.proc, self.stream, self.seq, self.kind, self.base_time, _,
         check, self.used, self.lost) = CHUNK.unpack_from(trace.data, at)
        self.at = at
        self.valid = (magic == CHUNK_MAGIC and own == at and self.proc != 0 and
                      check == fnv1a(trace.data[at + 8:at + 48]))

    def find_end(self, trace):
        claimed = self.units * trace.unit
        needed = -(-(CHUNK.size + self.used) // trace.unit) * trace.unit
        if 0 < self.units <= MAX_UNITS and needed <= claimed:
            first, last = needed, claimed
        else:
            first, last = trace.unit, min(max(claimed, needed), MAX_UNITS * trace.unit)
        for at in range(self.at + first, self.at + last, trace.unit):
            if trace.chunk_at(at):
                return at
        return self.at + last


class Trace:
    def __init__(self, data):
        if len(data) < 4096 or data[:8] != b"MEMTRACE":
            raise Bad("not a memtrace trace (or cut inside its header)")
        self.data = data
        self.version, self.header_bytes = struct.unpack_from("<II", data, 8)
        self.unit = struct.unpack_from("<I", data, 32)[0]
        self.problems = []
        if not self.version:
            raise Bad("the header is damaged: format version 0")
        if self.version > 2:
            raise Bad(f"format version {self.version}: newer than this reader")
        if (self.header_bytes, self.unit) != (12288, 256):
            self.problems.append(f"the header is damaged: header_bytes {self.header_bytes}, "
                                 f"unit_bytes {self.unit}; read as version 2 has them")
            self.header_bytes, self.unit = 12288, 256
        there = self.header_bytes + min(struct.unpack_from("<QQ", data, 256)) * self.unit
        if len(data) < there:
            self.problems.append(f"the file is cut: it ends {there - len(data)} bytes before what "
                                 "had been written")

    def chunk_at(self, at):
        if self.data[at:at + 4] != MAGIC_BYTES or at + CHUNK.size > len(self.data):
            return None
        chunk = Chunk(self, at)
        return chunk if chunk.valid else None

    def chunks(self):
        """(chunk, payload) in file order."""
        at, odd, numbers = self.header_bytes, 0, {}
        while at < len(self.data):
            chunk = self.chunk_at(at)
            if not chunk:
                odd += any(self.data[at:at + self.unit])
                at += self.unit
                continue
            at, start = chunk.find_end(self), at + CHUNK.size
            payload = self.data[start:min(start + chunk.used, at)]
            if len(payload) < chunk.used:
                self.problems.append(f"chunk at {chunk.at}: {chunk.used - len(payload)} of "
                                     f"{chunk.used} bytes are missing")
            if chunk.lost:
                self.problems.append(f"chunk at {chunk.at}: {chunk.lost} events were lost while "
                                     "recording")
            numbers.setdefault((chunk.proc, chunk.stream, chunk.kind), []).append(chunk.seq)
            yield chunk, payload
        if odd:
            self.problems.append(f"{odd} units hold bytes that belong to no chunk")
        self.check_numbers(numbers)

    def check_numbers(self, numbers):
        for (proc, stream, _), found in numbers.items():
            missing = max(found) + 1 - len(set(found))
            if missing:
                self.problems.append(f"process {proc}, stream {stream}: {missing} chunks are "
                                     "missing")
            if len(set(found)) < len(found):
                self.problems.append(f"process {proc}, stream {stream}: chunks with the same "
                                     "number")

    def records(self):
        """(chunk, tag, name, fields) in file order."""
        for chunk, payload in self.chunks():
            if chunk.kind in (NURSERY_CHUNK, CELLS_CHUNK):
                for row in (nursery_rows if chunk.kind == NURSERY_CHUNK else cell_rows)(payload):
                    if isinstance(row, Bad):
                        self.problems.append(f"chunk at {chunk.at}: {row}")
                    else:
                        yield chunk, None, row[0], row[1]
                continue
            if chunk.kind:
                self.problems.append(f"chunk at {chunk.at}: kind {chunk.kind} is not known: "
                                     "skipped")
                continue
            p = Payload(payload, chunk.base_time)
            while p.at < p.end:
                start = p.at
                try:
                    tag, name, values = p.record()
                except Bad as e:
                    self.problems.append(f"chunk at {chunk.at}, byte {start} of its payload: {e}")
                    break
                yield chunk, tag, name or f"0x{tag:02x}", values


def print_records(trace):
    for chunk, _, name, values in trace.records():
        row = {"proc": chunk.proc, "stream": chunk.stream, "seq": chunk.seq, "record": name}
        row.update(values)
        print(json.dumps(row))


class Folds:
    """What a process's streams kept back and counted, put together as section 3.7 says."""

    def __init__(self):
        self.cells, self.young, self.listed, self.emptied = {}, {}, set(), set()

    def see(self, chunk, name, v):
        if name in ("CELL", "FOLD", "FOLDING"):
            site = (chunk.stream, v["native"], v["python"], v["kind"])
            if v["count"] >= self.cells.get(site, {"count": 0})["count"]:
                self.cells[site] = v
        if name == "NURSERY" and v["fold_entry"]:
            self.emptied.add((chunk.at, v["fold_entry"] - 1))
        if name == "YOUNG_BLOCK":
            self.young[chunk.at, v["index"]] = (chunk.stream, v["kind"], v["addr"], v["time"],
                                                v["size"])
        if name == "SURVIVOR":
            self.listed.add((chunk.stream, v["kind"], v["addr"], v["time"]))

    def sums(self):
        """(allocations, frees, bytes) of kind heap."""
        cells = [c for c in self.cells.values() if not c["kind"] & 15]
        folded = sum(c["count"] for c in cells)
        young = [e for at, e in self.young.items()
                 if at not in self.emptied and e[:4] not in self.listed and not e[1] & 15]
        return (folded + len(young), folded,
                sum(c["bytes"] for c in cells) + sum(e[4] for e in young))


def print_stats(trace):
    """Counts per record kind; of each process the blocks of kind heap, as section 3.4 counts."""
    kinds, procs, folds = {}, {}, {}
    for chunk, _, name, v in trace.records():
        kinds[name] = kinds.get(name, 0) + 1
        p = procs.setdefault(chunk.proc, {"pid": None, "records": 0, "allocations": 0, "frees": 0,
                                          "bytes_allocated": 0})
        p["records"] += 1
        folds.setdefault(chunk.proc, Folds()).see(chunk, name, v)
        if name == "PROCESS":
            p["pid"] = v["pid"]
        if name not in ("ALLOC", "FREE", "REALLOC", "SURVIVOR") or v["kind"] & 15:
            continue
        if name != "FREE":
            p["allocations"] += 1
            p["bytes_allocated"] += v["size"]
        if name in ("FREE", "REALLOC"):
            p["frees"] += 1
    for number, f in folds.items():
        for key, value in zip(("allocations", "frees", "bytes_allocated"), f.sums()):
            procs[number][key] += value
    print(json.dumps({"records": kinds, "processes": procs}, indent=1))


def main():
    options = [w for w in sys.argv[1:] if w.startswith("--")]
    paths = [w for w in sys.argv[1:] if not w.startswith("--")]
    if len(paths) != 1 or any(o not in ("--json", "--stats") for o in options):
        print("usage: decode.py [--json | --stats] TRACE", file=sys.stderr)
        return 2
    try:
        with open(paths[0], "rb") as f:
            trace = Trace(f.read())
        (print_stats if "--stats" in options else print_records)(trace)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None
        return 1
    except OSError as e:
        print(f"decode.py: {paths[0]}: {e.strerror}", file=sys.stderr)
        return 1
    except Bad as e:
        print(f"decode.py: {paths[0]}: {e}", file=sys.stderr)
        return 1
    for problem in trace.problems:
        print(f"decode.py: {paths[0]}: {problem}", file=sys.stderr)
    return 1 if trace.problems else 0


if __name__ == "__main__":
    sys.exit(main())
