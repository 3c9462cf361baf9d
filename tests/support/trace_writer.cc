/*
 * See trace_writer.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "support/trace_writer.h"

#include <algorithm>
#include <cstring>
#include <fstream>

namespace memtrace_test
{

uint8_t *Stream::reserve(size_t room)
{
	if (open_ >= 0) {
		const auto &c = writer_->chunks_[open_];

		if (c.payload.size() + room + sizeof(mt_chunk) > c.header.units * MT_UNIT_BYTES)
			seal();
	}
	if (open_ < 0) {
		TraceWriter::Chunk c = {};
		uint32_t least = static_cast<uint32_t>(
			(room + sizeof(mt_chunk) + MT_UNIT_BYTES - 1) / MT_UNIT_BYTES);

		c.header.magic = MT_CHUNK_MAGIC;
		c.header.units = std::max(writer_->chunk_units, least);
		c.header.proc = proc_;
		c.header.stream = stream_;
		c.header.seq = seq_++;
		c.header.base_time = last_time_;
		c.oldest = UINT64_MAX;
		open_ = static_cast<int>(writer_->chunks_.size());
		writer_->chunks_.push_back(c);
		mt_codec_start(&codec_, last_time_);
	}
	auto &payload = writer_->chunks_[open_].payload;

	reserved_at_ = payload.size();
	payload.resize(reserved_at_ + room);
	return payload.data() + reserved_at_;
}

Stream &Stream::commit(uint8_t *end)
{
	auto &payload = writer_->chunks_[open_].payload;

	payload.resize(end - payload.data());
	last_time_ = std::max(last_time_, codec_.time);
	return *this;
}

Stream &Stream::alloc(uint64_t time, uint64_t addr, uint64_t size, uint64_t native, uint64_t python,
		      uint64_t kind)
{
	return put(mt_ev_alloc{ time, addr, size, native, python, kind });
}

Stream &Stream::free(uint64_t time, uint64_t addr, uint64_t kind)
{
	return put(mt_ev_free{ time, addr, kind });
}

Stream &Stream::realloc(uint64_t time, uint64_t old_addr, uint64_t took, uint64_t addr,
			uint64_t size, uint64_t native)
{
	return put(mt_ev_realloc{ time, old_addr, took, addr, size, native, 0, MT_KIND_HEAP });
}

Stream &Stream::map(uint64_t time, uint64_t addr, uint64_t size, uint64_t kind, uint64_t flags)
{
	mt_ev_map e = {};

	e.time = time;
	e.addr = addr;
	e.size = size;
	e.kind = kind;
	e.flags = flags;
	return put(e);
}

Stream &Stream::unmap(uint64_t time, uint64_t addr, uint64_t size)
{
	return put(mt_ev_unmap{ time, addr, size });
}

Stream &Stream::fact(const std::string &key, const std::string &value)
{
	return put(mt_ev_fact{ str(key), str(value) });
}

Stream &Stream::string(uint64_t id, const std::string &text)
{
	return put(mt_ev_string{ id, str(text) });
}

Stream &Stream::code(uint64_t id, const std::string &file, const std::string &name)
{
	string(2 * id, file);
	string(2 * id + 1, name);
	return put(mt_ev_code{ id, 2 * id, 2 * id + 1, 1, MT_LINES_NONE, mt_str{ "", 0 } });
}

Stream &Stream::survivor(uint64_t birth, uint64_t addr, uint64_t size, uint64_t native,
			 uint64_t kind)
{
	put(mt_ev_survivor{ birth, addr, size, native, 0, kind });
	uint64_t &oldest = writer_->chunks_[open_].oldest;

	oldest = std::min(oldest, birth);
	return *this;
}

std::vector<uint8_t> &Stream::special(uint32_t kind, uint32_t seq, size_t bytes)
{
	TraceWriter::Chunk c = {};

	c.header.magic = MT_CHUNK_MAGIC;
	c.header.units = static_cast<uint32_t>((bytes + sizeof(mt_chunk) + MT_UNIT_BYTES - 1) /
					       MT_UNIT_BYTES);
	c.header.proc = proc_;
	c.header.stream = stream_;
	c.header.seq = seq;
	c.header.kind = kind;
	c.header.base_time = last_time_;
	c.oldest = UINT64_MAX;
	c.payload.resize(bytes);
	writer_->chunks_.push_back(c);
	return writer_->chunks_.back().payload;
}

Stream &Stream::nursery(const std::vector<mt_young> &entries, mt_nursery head)
{
	auto &payload = special(MT_CHUNK_NURSERY, nurseries_++,
				sizeof(head) + entries.size() * sizeof(mt_young));

	head.entries = static_cast<uint32_t>(entries.size());
	memcpy(payload.data(), &head, sizeof(head));
	for (size_t i = 0; i < entries.size(); i++)
		memcpy(&payload[sizeof(head) + i * sizeof(mt_young)], &entries[i],
		       sizeof(mt_young));
	return *this;
}

Stream &Stream::cells(const std::vector<mt_cell> &cells)
{
	auto &payload = special(MT_CHUNK_COUNTERS, counters_++, cells.size() * sizeof(mt_cell));

	for (size_t i = 0; i < cells.size(); i++)
		memcpy(&payload[i * sizeof(mt_cell)], &cells[i], sizeof(mt_cell));
	return *this;
}

Stream &Stream::raw(const std::vector<uint8_t> &bytes)
{
	uint8_t *p = reserve(bytes.size());

	std::copy(bytes.begin(), bytes.end(), p);
	return commit(p + bytes.size());
}

Stream &Stream::seal()
{
	open_ = -1;
	return *this;
}

Stream &Stream::lose(uint64_t events)
{
	reserve(0);
	writer_->chunks_[open_].header.lost += events;
	return *this;
}

Stream &Stream::skip_chunk()
{
	seal();
	seq_++;
	return *this;
}

Stream &Stream::thread(uint64_t time, uint32_t tid)
{
	uint32_t number = writer_->next_stream_[proc_]++;

	writer_->streams_.emplace_back(new Stream(writer_, proc_, number, process_));
	Stream &s = *writer_->streams_.back();

	s.last_time_ = time;
	s.put(process_);
	s.put(mt_ev_thread{ time, tid, str("thread") });
	return s;
}

TraceWriter::TraceWriter()
{
	memcpy(header.magic, MT_FILE_MAGIC, sizeof(header.magic));
	header.version = MT_FORMAT_VERSION;
	header.header_bytes = MT_HEADER_BYTES;
	header.unit_bytes = MT_UNIT_BYTES;
	header.page_size = 4096;
	header.trace_id[0] = 0x5a;
}

Stream &TraceWriter::process(mt_ev_process ev)
{
	Stream &s = nameless(next_proc_);

	s.process_ = ev;
	s.last_time_ = ev.time;
	return s.put(ev);
}

Stream &TraceWriter::nameless(uint32_t proc)
{
	next_proc_ = std::max(next_proc_, proc + 1);
	next_stream_.resize(next_proc_, 0);
	streams_.emplace_back(new Stream(this, proc, next_stream_[proc]++, mt_ev_process{}));
	return *streams_.back();
}

Stream &TraceWriter::fork(Stream &parent, uint64_t time, uint32_t pid, uint64_t python)
{
	mt_ev_process ev = {};

	ev.time = time + 1;
	ev.pid = pid;
	ev.ppid = parent.process().pid;
	ev.reason = MT_PROCESS_FORK;
	ev.parent = parent.number();
	ev.fork_time = time;
	ev.node_base = ev.frame_base = ev.module_base = 1000;
	ev.pynode_base = ev.code_base = ev.string_base = 1000;
	parent.put(mt_ev_fork{ time, pid, 0, 0, python });
	return process(ev);
}

/* What a real writer knows from its nursery: nothing from here on in the stream is older. */
uint64_t TraceWriter::low_water(size_t chunk) const
{
	uint64_t low = chunks_[chunk].header.base_time;

	for (size_t i = chunk; i < chunks_.size(); i++)
		if (chunks_[i].header.proc == chunks_[chunk].header.proc &&
		    chunks_[i].header.stream == chunks_[chunk].header.stream)
			low = std::min(low, chunks_[i].oldest);
	return low;
}

std::vector<uint8_t> TraceWriter::bytes() const
{
	std::vector<uint8_t> out(MT_HEADER_BYTES);
	mt_file_header h = header;

	for (const auto &c : chunks_) {
		mt_chunk head = c.header;
		size_t at = out.size();

		head.low_water = low_water(static_cast<size_t>(&c - chunks_.data()));

		head.self = at;
		head.used = static_cast<uint32_t>(c.payload.size());
		head.check = mt_chunk_check(&head);
		out.resize(at + head.units * MT_UNIT_BYTES);
		memcpy(&out[at], &head, sizeof(head));
		if (!c.payload.empty())
			memcpy(&out[at + sizeof(head)], c.payload.data(), c.payload.size());
	}
	h.next = h.limit = (out.size() - MT_HEADER_BYTES) / MT_UNIT_BYTES;
	h.next_proc = next_proc_;
	memcpy(out.data(), &h, sizeof(h));
	return out;
}

std::string TraceWriter::save(const std::string &path) const
{
	auto file = bytes();
	std::ofstream f(path, std::ios::binary);

	f.write(reinterpret_cast<const char *>(file.data()),
		static_cast<std::streamsize>(file.size()));
	return path;
}

} // namespace memtrace_test
