/*
 * Synthetic traces in memory, made with the encoders of events.h, for tests of everything that
 * reads them:
 *
 *	TraceWriter w;
 *	auto &main = w.process({ .pid = 100, .reason = MT_PROCESS_ROOT });
 *	main.alloc(10, 0x1000, 64);
 *	main.free(20, 0x1000);
 *	std::vector<uint8_t> file = w.bytes();
 *
 * The clock counts nanoseconds and starts at 0, so a record's time is ns since the start unless the
 * header is changed. Chunks lie in the file in the order they were begun.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_TRACE_WRITER_H
#define MEMTRACE_TESTS_TRACE_WRITER_H

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "memtrace/events.h"

namespace memtrace_test
{

class TraceWriter;

inline mt_young young(uint64_t time, uint64_t addr, uint64_t size, uint32_t native = 0,
		      uint64_t kind = MT_KIND_HEAP)
{
	return mt_young{ addr | kind << MT_YOUNG_KIND_SHIFT, time, size, native, 0 };
}

inline mt_str str(const std::string &s)
{
	return mt_str{ s.data(), static_cast<uint32_t>(s.size()) };
}

/* One stream of one process. References stay valid as long as the writer. */
class Stream
{
      public:
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	Stream &put(const mt_ev_##name &e)                                                         \
	{                                                                                          \
		uint8_t *p = reserve(mt_##name##_room(&e));                                        \
		return commit(mt_put_##name(p, &codec_, &e));                                      \
	}
#define MT_FIELD(type, name, text)
#define MT_OPTIONAL(type, name, bit, text)
#define MT_END(NAME, name)
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

	Stream &alloc(uint64_t time, uint64_t addr, uint64_t size, uint64_t native = 0,
		      uint64_t python = 0, uint64_t kind = MT_KIND_HEAP);
	Stream &free(uint64_t time, uint64_t addr, uint64_t kind = MT_KIND_HEAP);
	Stream &realloc(uint64_t time, uint64_t old_addr, uint64_t took, uint64_t addr,
			uint64_t size, uint64_t native = 0);
	Stream &map(uint64_t time, uint64_t addr, uint64_t size, uint64_t kind = MT_KIND_MMAP,
		    uint64_t flags = 0);
	Stream &unmap(uint64_t time, uint64_t addr, uint64_t size);
	Stream &fact(const std::string &key, const std::string &value);
	Stream &string(uint64_t id, const std::string &text);
	/* A code object with its two strings, ids 2 * id and 2 * id + 1. */
	Stream &code(uint64_t id, const std::string &file, const std::string &name);
	Stream &survivor(uint64_t birth, uint64_t addr, uint64_t size, uint64_t native = 0,
			 uint64_t kind = MT_KIND_HEAP);
	/* Chunks of their own beside the open one: young blocks, and counts of folded ones. */
	Stream &nursery(const std::vector<mt_young> &entries, mt_nursery head = {});
	Stream &cells(const std::vector<mt_cell> &cells);
	Stream &raw(const std::vector<uint8_t> &bytes); /* as they are */
	/* The next record begins a new chunk. */
	Stream &seal();
	/* The open chunk's count of dropped events. */
	Stream &lose(uint64_t events);
	/* Leaves a number of the sequence out, as if the chunk were gone. */
	Stream &skip_chunk();
	/* Another stream of the same process (a thread); its first record repeats PROCESS. */
	Stream &thread(uint64_t time, uint32_t tid);

	const mt_ev_process &process() const
	{
		return process_;
	}
	uint32_t number() const
	{
		return proc_;
	}

      private:
	friend class TraceWriter;
	Stream(TraceWriter *writer, uint32_t proc, uint32_t stream, const mt_ev_process &process)
	    : writer_(writer), proc_(proc), stream_(stream), process_(process)
	{
	}
	uint8_t *reserve(size_t room);
	std::vector<uint8_t> &special(uint32_t kind, uint32_t seq, size_t bytes);
	Stream &commit(uint8_t *end);

	TraceWriter *writer_;
	uint32_t proc_, stream_, seq_ = 0, nurseries_ = 0, counters_ = 0;
	mt_ev_process process_;
	mt_codec codec_ = {};
	int open_ = -1; /* index in the writer's chunks */
	uint64_t last_time_ = 0;
	size_t reserved_at_ = 0;
};

class TraceWriter
{
      public:
	TraceWriter();
	/* Its number is the next one; writes the PROCESS record. time: ev.time. */
	Stream &process(mt_ev_process ev);
	/* What is known from then on for a stream that lacks its PROCESS record. */
	Stream &nameless(uint32_t proc);
	/* A child forked from the process of `parent` at `time`; the parent gets its FORK record.
	 */
	Stream &fork(Stream &parent, uint64_t time, uint32_t pid, uint64_t python = 0);

	std::vector<uint8_t> bytes() const;
	/* Written to a new file in the folder; returns its path. */
	std::string save(const std::string &path) const;

	mt_file_header header = {};
	uint32_t chunk_units = 4; /* of chunks begun from now on */

      private:
	friend class Stream;
	uint64_t low_water(size_t chunk) const;
	struct Chunk {
		mt_chunk header;
		uint64_t oldest; /* of its SURVIVORs */
		std::vector<uint8_t> payload;
	};
	std::vector<Chunk> chunks_;
	std::deque<std::unique_ptr<Stream>> streams_;
	uint32_t next_proc_ = 1;
	std::vector<uint32_t> next_stream_ = { 0 };
};

} // namespace memtrace_test

#endif
