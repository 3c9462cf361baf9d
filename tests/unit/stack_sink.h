/*
 * A thread of the shim whose records stay in memory, and the dictionaries they make up: what the
 * tests of preload/stack/ look at.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_STACK_SINK_H
#define MEMTRACE_TESTS_STACK_SINK_H

#include <sys/mman.h>

#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

extern "C" {
#include "core/thread.h"
#include "memtrace/format.h"
}

/* Ids are unique within the process, so all sinks fill the same tables. */
struct Dictionary {
	struct Node {
		uint64_t parent, frame;
	};
	struct Frame {
		uint64_t module, offset, flags;
	};
	std::map<uint64_t, Node> nodes;
	std::map<uint64_t, Frame> frames;
	std::map<uint64_t, uint64_t> bias; /* by module */
	std::map<uint64_t, std::string> path;
	std::set<uint64_t> gone;
	uint64_t modules_written = 0;

	static Dictionary &all()
	{
		static Dictionary d;
		return d;
	}

	/* Addresses of a stack, innermost first; enum mt_pseudo_frame as small numbers. */
	std::vector<uint64_t> addresses(uint64_t node) const
	{
		std::vector<uint64_t> out;

		for (; node; node = nodes.at(node).parent) {
			const Frame &f = frames.at(nodes.at(node).frame);
			out.push_back(f.module ? bias.at(f.module) + f.offset : f.offset);
		}
		return out;
	}
};

class Sink
{
      public:
	Sink()
	{
		size_ = size_t(256) << 20;
		map_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (map_ == MAP_FAILED)
			throw std::runtime_error("no memory for the sink");
		t.chunk = static_cast<mt_chunk *>(map_);
		read_ = t.at = reinterpret_cast<uint8_t *>(t.chunk + 1);
		t.end = static_cast<uint8_t *>(map_) + size_;
		mt_codec_start(&t.codec, 0);
		mt_codec_start(&codec_, 0);
	}
	~Sink()
	{
		munmap(map_, size_);
	}
	Sink(const Sink &) = delete;
	Sink &operator=(const Sink &) = delete;

	/* Reads what was written since the last call into the common dictionary; the records. */
	std::vector<mt_record> drain()
	{
		std::vector<mt_record> out;
		Dictionary &d = Dictionary::all();

		while (read_ < t.at) {
			mt_record r;
			const uint8_t *next = mt_get_record(read_, t.at, &codec_, &r);

			if (!next)
				throw std::runtime_error("a record can't be read back");
			read_ = const_cast<uint8_t *>(next);
			add(d, r);
			out.push_back(r);
		}
		return out;
	}

	mt_thread t = {};

      private:
	static void add(Dictionary &d, const mt_record &r)
	{
		switch (r.id) {
		case MT_EV_NODE:
			d.nodes[r.u.node.id] = { r.u.node.parent, r.u.node.frame };
			break;
		case MT_EV_FRAME:
			d.frames[r.u.frame.id] = { r.u.frame.module, r.u.frame.offset,
						   r.u.frame.flags };
			break;
		case MT_EV_MODULE:
			d.bias[r.u.module.id] = r.u.module.bias;
			d.path[r.u.module.id].assign(r.u.module.path.data, r.u.module.path.len);
			d.gone.erase(r.u.module.id);
			d.modules_written++;
			break;
		case MT_EV_MODULE_GONE:
			d.gone.insert(r.u.module_gone.id);
			break;
		}
	}

	void *map_;
	size_t size_;
	uint8_t *read_;
	mt_codec codec_;
};

#endif
