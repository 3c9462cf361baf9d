/*
 * Traces that are still being written, and files that change under the reader's hands.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "pipeline/run.h"
#include "support/replayed.h"
#include "trace/cursor.h"
#include "trace/internal.h"
#include "trace/merge.h"

using memtrace_test::Root;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;
using memtrace_test::young;

namespace
{

/* Between the look at the file's size and the look at its header more is written. */
TEST(ReaderLive, WhatIsClaimedByNowBelongsToTheFile)
{
	char path[] = "/tmp/memtrace-reader-XXXXXX";
	TraceWriter w;
	Stream &s = w.process(Root());
	char *error = nullptr;

	close(mkstemp(path));
	s.alloc(10, 0x1000, 1);
	w.save(path);
	trace *t = trace_open(path, &error);

	ASSERT_NE(t, nullptr) << error;
	s.seal().alloc(20, 0x2000, 1).seal().alloc(30, 0x3000, 1);
	w.save(path);
	memcpy(&t->header, w.bytes().data(), sizeof(t->header));
	t->chunks.count = t->streams.count = t->processes.count = 0;
	t->window_len = 0;
	trace_index(t);
	EXPECT_EQ(t->chunks.count, 3u);
	EXPECT_EQ(t->problems.missing_bytes, 0u);
	EXPECT_EQ(t->problems.cut_chunks, 0u);
	trace_close(t);
	unlink(path);
}

/* A writer that never rests: at any moment its trace is whole. */
TEST(ReaderLive, ATraceIsWholeWhileItIsWritten)
{
	char path[] = "/tmp/memtrace-reader-XXXXXX";
	int fd = mkstemp(path);
	TraceWriter empty;
	std::vector<uint8_t> head = empty.bytes();
	std::atomic<bool> stop{ false }, full{ false };
	std::atomic<uint64_t> written{ 0 };

	ASSERT_EQ(write(fd, head.data(), head.size()), static_cast<ssize_t>(head.size()));
	std::thread writer([&] {
		uint64_t at = MT_HEADER_BYTES, time = 1;
		mt_file_header *header = static_cast<mt_file_header *>(
			mmap(nullptr, sizeof(*header), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));

		header->next_proc = 2;
		for (uint32_t seq = 0; !stop && seq < 3000; seq++, at += 8 * MT_UNIT_BYTES) {
			/* Space first, and no byte too much; then the claim. */
			if (ftruncate(fd, static_cast<off_t>(at + 8 * MT_UNIT_BYTES)))
				abort();
			__atomic_store_n(&header->next, (at - MT_HEADER_BYTES) / MT_UNIT_BYTES + 8,
					 __ATOMIC_SEQ_CST);
			char *page = static_cast<char *>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE,
							      MAP_SHARED, fd,
							      static_cast<off_t>(at & ~4095ull)));
			auto *c = reinterpret_cast<mt_chunk *>(page + (at & 4095));
			mt_chunk want = {};
			mt_codec codec;
			uint8_t *p = reinterpret_cast<uint8_t *>(c + 1);

			want.units = 8;
			want.self = at;
			want.proc = 1;
			want.seq = seq;
			want.base_time = want.low_water = time;
			want.check = mt_chunk_check(&want);
			memcpy(&c->units, &want.units, sizeof(want) - 4);
			__atomic_store_n(&c->magic, MT_CHUNK_MAGIC, __ATOMIC_RELEASE);
			mt_codec_start(&codec, time);
			while (p < reinterpret_cast<uint8_t *>(c) + 8 * MT_UNIT_BYTES - 80) {
				mt_ev_alloc e = { ++time, time * 16, 1, 0, 0, 0 };

				p = mt_put_alloc(p, &codec, &e);
				__atomic_store_n(&c->used,
						 static_cast<uint32_t>(
							 p - reinterpret_cast<uint8_t *>(c + 1)),
						 __ATOMIC_RELEASE);
				written++;
			}
			munmap(page, 8192);
		}
		munmap(header, sizeof(*header));
		full = true;
	});
	for (int i = 0; !full; i++) {
		const char *paths[] = { path };
		uint64_t before = written;
		pipeline_report report;
		model *m = pipeline_run(paths, 1, nullptr, &report);

		ASSERT_NE(m, nullptr);
		for (int c = 0; c < COUNTS; c++) {
			EXPECT_TRUE(!pipeline_count_rows[c].is_problem ||
				    !report.checks[0].counts[c])
				<< pipeline_count_rows[c].key << " in round " << i;
		}
		EXPECT_GE(m->process_count ? m->processes[0].allocations : 0, before);
		model_free(m);
		pipeline_report_release(&report);
	}
	stop = true;
	writer.join();
	close(fd);
	unlink(path);
}

TEST(ReaderLive, AFileThatGrowsIsReadAsItWasWhenOpened)
{
	char path[] = "/tmp/memtrace-reader-XXXXXX";
	TraceWriter w;
	Stream &s = w.process(Root());

	close(mkstemp(path));
	s.alloc(10, 0x1000, 1);
	w.save(path);
	char *error = nullptr;
	trace *t = trace_open(path, &error);

	ASSERT_NE(t, nullptr) << error;
	s.alloc(20, 0x2000, 1);
	w.save(path);
	size_t count, records = 0;
	cursor c;

	cursor_init(&c, t, trace_streams(t, &count));
	while (cursor_next(&c))
		records++;
	EXPECT_EQ(records, 2u) << "PROCESS and one ALLOC";
	cursor_release(&c);
	/* And one that shrinks under our hands is no crash. */
	cursor_init(&c, t, trace_streams(t, &count));
	EXPECT_EQ(truncate(path, MT_HEADER_BYTES + 70), 0);
	while (cursor_next(&c))
		;
	EXPECT_GT(trace_damage(t)->missing_bytes, 0u);
	cursor_release(&c);
	trace_close(t);
	unlink(path);
}

/* What writers leave in the process table while they run. */
void SetRunning(const char *path, uint32_t proc)
{
	int fd = open(path, O_WRONLY);
	mt_proc_slot slot = { static_cast<uint32_t>(getpid()), proc, 0 };

	EXPECT_EQ(pwrite(fd, &slot, sizeof(slot), 4096), static_cast<ssize_t>(sizeof(slot)));
	close(fd);
}

std::vector<uint64_t> SurvivorsOf(trace *t)
{
	std::vector<uint64_t> addresses;
	merge *m = merge_new(t, trace_find(t, 1));
	merge_event e;

	while (merge_next(m, &e))
		if (!e.cell && e.record->id == MT_EV_SURVIVOR)
			addresses.push_back(e.record->u.survivor.addr);
	merge_free(m);
	return addresses;
}

/* Its records are read later than its nursery, but it is the nursery of then that counts. */
TEST(ReaderLive, ABlockThatLeavesTheNurseryMeanwhileIsSeenOnce)
{
	char path[] = "/tmp/memtrace-reader-XXXXXX";
	TraceWriter before, after;
	char *error = nullptr;

	close(mkstemp(path));
	before.process(Root()).nursery({ young(10, 0x1000, 1), young(20, 0x2000, 1) });
	after.process(Root()).nursery({ mt_young{}, young(20, 0x2000, 1) }).survivor(10, 0x1000, 1);
	before.save(path);
	SetRunning(path, 1);
	trace *t = trace_open(path, &error);

	ASSERT_NE(t, nullptr) << error;
	after.save(path);
	EXPECT_EQ(SurvivorsOf(t), (std::vector<uint64_t>{ 0x1000, 0x2000 }));
	trace_close(t);
	unlink(path);
}

/* A writer that folds without rest, by the protocol of docs/FORMAT.md 3.7. */
void FoldForEver(mt_nursery *n, mt_cell *cells, uint64_t cell_at, std::atomic<bool> *stop)
{
	auto *entry = reinterpret_cast<mt_young *>(n + 1);

	for (uint64_t i = 1; !*stop; i++) {
		mt_cell *c = &cells[i % 4];

		entry->time = i;
		entry->size = 16;
		__atomic_store_n(&entry->addr, 0x1000, __ATOMIC_RELEASE);
		n->fold = *c;
		n->fold.count++;
		n->fold.bytes += 16;
		n->fold.brief++;
		n->fold.largest = 16;
		n->fold.last = i;
		n->fold_cell = cell_at + (i % 4) * sizeof(*c);
		__atomic_store_n(&n->fold_entry, 1u, __ATOMIC_RELEASE);
		*c = n->fold;
		__atomic_store_n(&entry->addr, 0ull, __ATOMIC_RELEASE);
		__atomic_store_n(&n->fold_entry, 0u, __ATOMIC_RELEASE);
	}
}

TEST(ReaderLive, CountsAreNeverTornWhileTheyChange)
{
	char path[] = "/tmp/memtrace-reader-XXXXXX";
	int fd = mkstemp(path);
	TraceWriter w;
	mt_cell cell = { 0, 0, MT_KIND_HEAP, 0, 1, 16, 1, 16, 1, 1 };
	std::vector<mt_cell> cells(4, cell);
	std::atomic<bool> stop{ false };
	uint64_t seen = 0, last = 0;

	for (uint32_t i = 0; i < 4; i++)
		cells[i].native = i;
	w.process(Root()).seal().nursery({ mt_young{} }).cells(cells);
	w.save(path);
	SetRunning(path, 1);
	size_t size = w.bytes().size();
	auto *file = static_cast<uint8_t *>(
		mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	size_t at = MT_HEADER_BYTES + 4 * MT_UNIT_BYTES + sizeof(mt_chunk);
	auto *n = reinterpret_cast<mt_nursery *>(file + at);
	uint64_t cell_at = MT_HEADER_BYTES + 5 * MT_UNIT_BYTES + sizeof(mt_chunk);

	std::thread writer(FoldForEver, n, reinterpret_cast<mt_cell *>(file + cell_at), cell_at,
			   &stop);
	for (int i = 0; i < 20000; i++) {
		const char *paths[] = { path };
		pipeline_report report;
		model *m = pipeline_run(paths, 1, nullptr, &report);
		const process &p = m->processes[0];

		EXPECT_EQ(p.bytes_allocated, p.allocations * 16);
		EXPECT_EQ(p.allocations - p.frees, p.live_count);
		EXPECT_LE(p.live_count, 1u);
		EXPECT_EQ(report.checks[0].counts[COUNT_BAD_BYTES], 0u);
		seen += p.allocations > last;
		last = p.allocations;
		model_free(m);
		pipeline_report_release(&report);
	}
	stop = true;
	writer.join();
	EXPECT_GT(seen, 100u) << "it does change meanwhile";
	munmap(file, size);
	close(fd);
	unlink(path);
}

} // namespace
