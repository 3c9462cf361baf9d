/*
 * Layout of a trace file: file header, process table, chunks. The records inside chunks are in
 * events.def. docs/FORMAT.md is the normative text; this header is what the code compiles.
 *
 *   0                  4096            MT_HEADER_BYTES                        next * unit_bytes
 *   +------------------+---------------+---------+-----------+-- ... --+------+
 *   | mt_file_header   | process table | chunk   | chunk     |         | chunk|  (fallocated tail)
 *   +------------------+---------------+---------+-----------+-- ... --+------+
 *
 * Writers map pieces of the file MAP_SHARED. A thread claims a chunk by adding its size to `next`;
 * it commits a record by a release store to the chunk's `used`. Only nurseries and counters are
 * rewritten in place, with a commit of their own, so the file is complete up to the last committed
 * record of every thread at any moment, also after SIGKILL. All integers are little-endian; structs
 * have no padding that the compiler chose.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_FORMAT_H
#define MEMTRACE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define MT_STATIC_ASSERT(cond, text) static_assert(cond, text)
#else
#define MT_STATIC_ASSERT(cond, text) _Static_assert(cond, text)
#endif

#define MT_FILE_MAGIC "MEMTRACE" /* 8 bytes, no terminating zero */
#define MT_FORMAT_VERSION 2u /* a reader refuses a higher number; 1 had no nursery */
#define MT_UNIT_BYTES 256u /* grid of chunks: small, so that a short-lived process costs little */
#define MT_HEADER_BYTES 12288u /* header page and two pages of process table */
#define MT_PROC_SLOTS 512u
#define MT_CHUNK_MAGIC 0x3143544du /* "MTC1" */
#define MT_CHUNK_MAX_UNITS 8192u /* 2 MiB: bounds what one wrong header can claim */
#define MT_TRACE_ID_BYTES 16

/* Bits of mt_file_header.flags. */
enum mt_file_flags {
	MT_FILE_TSC = 1, /* ticks are the CPU's invariant time-stamp counter, else nanoseconds */
	MT_FILE_NO_FALLOCATE =
		2, /* the file system cannot reserve space; zeros were written instead */
	MT_FILE_FULL = 4, /* a process could not get more space; see `error` */
	MT_FILE_GPU = 8, /* a process of the tree uses a device (GPU_DEVICE) */
};

struct mt_file_header {
	char magic[8];
	uint32_t version;
	uint32_t header_bytes; /* offset of the first unit */
	uint8_t trace_id[MT_TRACE_ID_BYTES]; /* random; what children join by */
	uint32_t unit_bytes;
	uint32_t time_shift; /* records count time in ticks >> time_shift */
	uint32_t page_size; /* of the traced machine, bytes */
	uint32_t root_pid;
	uint64_t root_start; /* field 22 of /proc/PID/stat: clock ticks since boot */
	uint64_t pid_namespace; /* inode of /proc/self/ns/pid, 0 when unreadable */
	uint64_t start_ticks; /* the trace's time 0 */
	uint64_t start_realtime_ns; /* CLOCK_REALTIME at start_ticks */
	uint64_t start_monotonic_ns; /* CLOCK_MONOTONIC at start_ticks */
	char boot_id[40]; /* /proc/sys/kernel/random/boot_id, zero padded */
	uint8_t reserved0[128];

	/* Written by all processes: alone on a cache line. */
	uint64_t next; /* atomic; first unclaimed unit, counted from header_bytes */
	uint64_t limit; /* atomic; units below are backed by disk space */
	uint32_t next_proc; /* atomic; number of the next process, from 1 */
	uint32_t flags; /* atomic; enum mt_file_flags */
	uint32_t error; /* atomic; errno that ended recording in some process, 0: none */
	uint32_t table_full; /* atomic; 1: a process found no free slot in the table */
	uint64_t settled; /* atomic; for writers only: page cache was looked after up to here */
	uint64_t
		paid; /* atomic; bytes, at least, of frees of what was recorded in full before sampling began */
	uint32_t
		warned; /* atomic; thresholds passed, each 0 to 3: of RAM, cgroup << 8, GPU n << 16 + 2n */
	uint8_t reserved1[12];
	/* For writers only: per slot of the process table, when the pages of that process were last
	 * walked, in units of 2^24 ns of CLOCK_MONOTONIC, bit 0 set; 0: not to be walked. Atomic */
	uint32_t walked[MT_PROC_SLOTS];
	/* Atomic, for writers only: when that process was last sampled, or may be next, in
	 * MT_SLOT_TIME_NS of CLOCK_MONOTONIC, modulo 2^16. */
	uint16_t sampled[MT_PROC_SLOTS];
	/* Of a recording that an attach began, for programs that its processes start: CLOCK_MONOTONIC
	 * when it is to end, 0: not by itself; and what it records with, NAME=value, each with a zero. */
	uint64_t until_ns;
	char settings[504];
	uint8_t reserved2[4096 - 832 - 6 * MT_PROC_SLOTS];
};

#define MT_SLOT_TIME_NS (UINT64_C(1) << 28)

/* One live process of the tree; a slot with pid 0, or whose process is gone, is free. */
struct mt_proc_slot {
	uint32_t pid; /* atomic; as the process itself sees it */
	uint32_t proc; /* its number in this trace */
	uint64_t start; /* field 22 of /proc/PID/stat */
};

struct mt_chunk {
	uint32_t magic; /* MT_CHUNK_MAGIC, stored last when the header is complete */
	uint32_t
		units; /* atomic; size of header and payload; shrinks when the tail is given back */
	uint64_t
		self; /* offset of this header in the file: tells it from payload that looks alike */
	uint32_t proc; /* number of the writing process */
	uint32_t stream; /* within the process; chunks of a stream follow each other by seq */
	uint32_t seq; /* from 0 */
	uint32_t kind; /* enum mt_chunk_kind */
	uint64_t base_time; /* ticks >> time_shift; what the first time delta is added to */
	uint64_t low_water; /* same unit: no record from here on in this stream is older */
	uint32_t check; /* mt_chunk_check() over self ... low_water */
	uint32_t used; /* atomic; committed payload bytes */
	uint64_t lost; /* atomic; events that this stream had to drop while this was its chunk */
};

enum mt_chunk_kind {
	MT_CHUNK_RECORDS = 0, /* records of events.def */
	MT_CHUNK_NURSERY = 1, /* struct mt_nursery: young allocations of a stream */
	MT_CHUNK_COUNTERS = 2, /* struct mt_cell after each other: what a stream folded, by site */
};

/*
 * A stream's nursery and counters: the two kinds of chunk that are rewritten in place (FORMAT.md
 * 3.7). Their writer is one thread. A fold changes a cell and empties an entry; it is written down
 * in the nursery's fold_* first, and done, for good, with the store to fold_entry.
 */
struct mt_young {
	uint64_t addr; /* start of the block, kind << 56; 0: empty. Stored last */
	uint64_t time; /* after the call returned, units */
	uint64_t size; /* requested bytes */
	uint32_t native, python; /* stacks */
};

struct mt_cell {
	uint32_t native, python; /* stacks */
	uint32_t kind; /* enum mt_kind and flags */
	uint32_t reserved;
	uint64_t count; /* allocations, each with its free */
	uint64_t bytes; /* requested */
	uint64_t brief; /* of `count`: lived less than MT_BRIEF_UNITS */
	uint64_t largest; /* requested bytes of the largest one */
	uint64_t first, last; /* time of the first one's allocation, of the last one's free */
};

struct mt_nursery {
	uint32_t entries; /* how many struct mt_young follow */
	uint32_t fold_entry; /* a fold is under way: 1 + index of the entry it empties; 0: none */
	uint64_t fold_cell; /* offset in the file of the cell it changes */
	struct mt_cell fold; /* what the cell is to be */
	uint64_t young_time; /* as in a YOUNG record, of the present window; young_most 0: none */
	uint64_t young_bytes, young_most, young_since;
	uint8_t reserved[16];
};

/* Below this lifetime a block is short-lived in every report: some 2 ms with a counter of 2 to
 * 3 GHz. A number of units and not of nanoseconds, so that writer and reader can't disagree. */
#define MT_BRIEF_UNITS (1u << 17)
#define MT_YOUNG_KIND_SHIFT 56
#define MT_YOUNG_ADDR_MASK ((UINT64_C(1) << MT_YOUNG_KIND_SHIFT) - 1)

MT_STATIC_ASSERT(sizeof(struct mt_file_header) == 4096, "the header is one page");
MT_STATIC_ASSERT(offsetof(struct mt_file_header, next) == 256, "shared counters start a line");
MT_STATIC_ASSERT(sizeof(struct mt_proc_slot) == 16, "no padding");
MT_STATIC_ASSERT(MT_PROC_SLOTS * sizeof(struct mt_proc_slot) == MT_HEADER_BYTES - 4096,
		 "header and table fill their pages");
MT_STATIC_ASSERT(sizeof(struct mt_chunk) == 64, "no padding");
MT_STATIC_ASSERT(sizeof(struct mt_young) == 32, "no padding");
MT_STATIC_ASSERT(sizeof(struct mt_cell) == 64, "no padding, one cache line");
MT_STATIC_ASSERT(sizeof(struct mt_nursery) == 128, "no padding, whole cache lines");

/* FNV-1a over the constant part of a chunk header, self to low_water: a torn or overwritten one
 * does not match. */
static inline uint32_t mt_chunk_check(const struct mt_chunk *chunk)
{
	const uint8_t *p = (const uint8_t *)chunk;
	uint32_t hash = 2166136261u;

	for (size_t i = offsetof(struct mt_chunk, self); i < offsetof(struct mt_chunk, check); i++)
		hash = (hash ^ p[i]) * 16777619u;
	return hash;
}

/* What an allocation record is about; the report's `kind`. Low bits of a record's kind field. */
enum mt_kind {
	MT_KIND_HEAP = 0,
	MT_KIND_MMAP = 1,
	MT_KIND_SHM = 2,
	MT_KIND_PYTHON = 3,
	MT_KIND_DEVICE = 4,
	MT_KIND_PINNED = 5,
	MT_KIND_MANAGED = 6,
	MT_KIND_TENSOR = 7,
	MT_KINDS = 8,
	MT_KIND_MASK = 0x0f,
	MT_KIND_BACKING = 0x10, /* made inside an allocator: its blocks are counted already */
};

/* Flags of an mt_ev_pynode. */
enum mt_pynode_flags {
	MT_PYNODE_ENTRY = 1, /* outermost Python frame of one native eval-loop frame */
};

/* Special native frames: offsets in module 0 (which has no file). */
enum mt_pseudo_frame {
	MT_FRAME_TRUNCATED = 1, /* frames between the two kept ends were cut (MEMTRACE_DEPTH) */
	MT_FRAME_NO_UNWIND_INFO = 2, /* the walk ended at code without unwind information */
	MT_FRAME_BAD_STACK = 3, /* the walk ended at an address that cannot be a frame */
	MT_FRAME_LOST = 4, /* the dictionary was full or could not be written */
};

/* Line-table encodings of mt_ev_code.kind. */
enum mt_line_kind {
	MT_LINES_NONE = 0,
	MT_LINES_LNOTAB = 1, /* <= 3.9: pairs, code offset delta and signed line delta */
	MT_LINES_310 = 2, /* 3.10: PEP 626 pairs */
	MT_LINES_311 = 3, /* >= 3.11: PEP 657 location table */
};

/* How a process came to be: mt_ev_process.reason. */
enum mt_process_reason {
	MT_PROCESS_ROOT = 0, /* first of its trace */
	MT_PROCESS_FORK = 1, /* ids below the bases belong to the parent */
	MT_PROCESS_EXEC = 2, /* fresh image */
	MT_PROCESS_ATTACHED = 3, /* recording began in mid-run: what was there before is unknown */
	MT_PROCESS_WATCHER = 4, /* `memtrace run` itself, not of the tree: what it saw of others */
};

enum mt_exit_kind {
	MT_EXIT_EXIT = 0,
	MT_EXIT_UNDERSCORE = 1,
	MT_EXIT_DETACHED =
		2, /* recording ended and the process ran on; code: enum mt_control_ended */
};

enum mt_mark_kind {
	MT_MARK_MARK = 0,
	MT_MARK_PHASE = 1, /* a phase begins; empty label: the current phase ends */
	MT_MARK_STEP = 2,
	MT_MARK_PAUSE = 3,
	MT_MARK_RESUME = 4,
	MT_MARK_SHUTDOWN = 5, /* the Python interpreter began to shut down */
};

/* mt_ev_object.op: what happened to a named or anonymous shared-memory object. */
enum mt_object_op {
	MT_OBJECT_SHM_OPEN = 0,
	MT_OBJECT_SHM_UNLINK = 1,
	MT_OBJECT_MEMFD = 2,
	MT_OBJECT_TRUNCATE = 3,
	MT_OBJECT_SHMAT = 4,
};

/* Why the pages of a process were walked: mt_ev_scan.reason. */
enum mt_scan_reason {
	MT_SCAN_START = 0, /* a forked child before it touched anything: the baseline */
	MT_SCAN_INTERVAL = 1, /* the time for it had come */
	MT_SCAN_EXIT = 2, /* the process is about to end */
	MT_SCAN_PEAK = 3, /* more is resident than at any walk before */
	MT_SCAN_REQUEST = 4, /* somebody asked for it */
};

/* Which mappings a walk visits: mt_ev_scan.scope. Those without a page of their own are left out. */
enum mt_scan_scope {
	MT_SCAN_ALL = 0,
	MT_SCAN_PRIVATE = 1, /* private and writable: what a fork shares until it is written to */
	MT_SCAN_NONE = 2, /* none: nothing faulted since this process's last walk of that one */
};

/* mt_ev_range.flags */
enum mt_range_flags {
	MT_RANGE_SHARED = 1, /* MAP_SHARED */
	MT_RANGE_HEAP = 2, /* moved by brk */
	MT_RANGE_STACK = 4, /* of the main thread, as the kernel says */
	MT_RANGE_TOOL = 8, /* memtrace's own memory */
	MT_RANGE_DELETED = 16, /* the file has no name any more */
};

/* Pages, at a multiple of as many: some of them are read, and the others taken to be like them. */
#define MT_PAGE_GROUP 512u

/* Bits of a page's state in mt_ev_range.runs, as /proc/PID/pagemap has them. */
enum mt_page_state {
	MT_PAGE_PRESENT = 1,
	MT_PAGE_EXCLUSIVE = 2, /* mapped by this process alone (bit 56) */
	MT_PAGE_FILE = 4, /* of a file, or anonymous and shared (bit 61) */
	MT_PAGE_SWAPPED = 8,
	MT_PAGE_HUGE = 16, /* part of a huge page; only where the kernel tells */
	MT_PAGE_LIKE = 32, /* alone: not read, as those beside it that were (FORMAT.md 3.9) */
};

/* mt_ev_gpu_take.flags */
enum mt_gpu_take_flags {
	MT_GPU_BORROWED = 1, /* another process's memory, mapped here: no new bytes */
	MT_GPU_ASYNC = 2, /* stream-ordered, from a pool */
	MT_GPU_ARRAY = 4, /* addr is a handle */
	MT_GPU_GRAPH = 8, /* of a graph's memory node: bytes only while the graph runs */
	MT_GPU_RUNTIME = 16, /* the driver's call was not seen, only the runtime's */
};

enum mt_gpu_vmm_op {
	MT_GPU_VMM_CREATE = 0,
	MT_GPU_VMM_IMPORT = 1, /* no new bytes */
	MT_GPU_VMM_RETAIN = 2,
	MT_GPU_VMM_RELEASE = 3,
	MT_GPU_VMM_MAP = 4,
	MT_GPU_VMM_UNMAP = 5,
};

enum mt_gpu_pool_op {
	MT_GPU_POOL_CREATE = 0,
	MT_GPU_POOL_DESTROY = 1,
	MT_GPU_POOL_LEVEL = 2,
};

#endif
