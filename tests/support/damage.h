/*
 * Small traces with a bit of everything, for tests that damage them at every byte.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_DAMAGE_H
#define MEMTRACE_TESTS_DAMAGE_H

#include "support/trace_writer.h"

namespace memtrace_test
{

/* Three processes, four streams, several chunks each, all kinds of records. */
inline void FamilyTrace(TraceWriter &w)
{
	mt_ev_process ev = {};

	w.chunk_units = 1;
	ev.pid = 100;
	ev.reason = MT_PROCESS_ROOT;
	Stream &main = w.process(ev);

	main.fact("host", "somewhere").fact("cmdline", std::string("python\0train.py\0", 16));
	main.put(mt_ev_clock{ 1000, 1000, 5000 });
	main.put(mt_ev_module{ 1, 1, 0, 0x1000, 0x9000, 7, str("/lib/libc.so.6"), str("abcd") });
	main.code(1, "/home/me/train.py", "main");
	main.put(mt_ev_pynode{ 1, 0, 1, 4, MT_PYNODE_ENTRY });
	for (uint64_t i = 1; i <= 4; i++) {
		main.put(mt_ev_frame{ i, 1, 0x1000 + i * 16, 0 });
		main.put(mt_ev_node{ i, i - 1, i });
	}
	Stream &thread = main.thread(150, 101);

	for (uint64_t i = 0; i < 24; i++) {
		main.alloc(100 + 10 * i, 0x100000 + 0x40 * i, 16 + i, i % 5, i % 2);
		thread.alloc(200 + 10 * i, 0x200000 + 0x40 * i, 1000 + i, i % 3);
		if (i % 3 == 0)
			thread.free(205 + 10 * i, 0x100000 + 0x40 * i);
		if (i % 6 == 1)
			main.realloc(109 + 10 * i, 0x100000 + 0x40 * i, 1, 0x300000 + 0x40 * i, 99);
	}
	main.map(400, 0x7f0000000000, 0x10000);
	Stream &child = w.fork(main, 450, 200, 1);

	child.free(460, 0x300040).alloc(470, 0x300040, 77, 2, 1);
	Stream &grandchild = w.fork(child, 480, 300);

	for (uint64_t i = 0; i < 12; i++)
		grandchild.alloc(490 + i, 0x500000 + 0x20 * i, 5);
	grandchild.put(mt_ev_exit{ 520, MT_EXIT_UNDERSCORE, 1 });
	child.put(mt_ev_mark{ 525, MT_MARK_PHASE, 0, str("phase") });
	child.put(mt_ev_wait{ 530, 300, 0, 1 });
	main.unmap(540, 0x7f0000004000, 0x4000);
	mt_ev_sample sample = {};

	sample.time = 550;
	sample.rss = 12345;
	sample.pss = 2345;
	main.put(sample);
	main.put(mt_ev_wait{ 560, 200, 9, 0 });
	thread.put(mt_ev_thread_end{ 570, 101 });
	main.put(mt_ev_clock{ 580, 580, 5580 });
	main.put(mt_ev_exit{ 590, MT_EXIT_EXIT, 0 });
}

/* Two processes, three streams whose short-lived blocks were folded. */
inline void FoldedTrace(TraceWriter &w)
{
	w.chunk_units = 1;
	mt_ev_process ev = {};

	ev.pid = 100;
	Stream &main = w.process(ev);
	mt_nursery head = {};
	auto cell = [](uint32_t native, uint64_t count, uint64_t last) {
		return mt_cell{ native, 0, 0, 0, count, count * 16, count / 2, 32, 110, last };
	};

	main.fact("events", "folded");
	for (uint64_t i = 1; i <= 4; i++) {
		main.put(mt_ev_frame{ i, 0, 0x1000 + i * 16, 0 });
		main.put(mt_ev_node{ i, i - 1, i });
	}
	Stream &thread = main.thread(150, 101);

	thread.nursery({ young(700, 0x4000, 7, 2), mt_young{}, young(710, 0x5000, 9, 3) });
	for (uint64_t i = 0; i < 12; i++) {
		main.alloc(200 + 20 * i, 0x100000 + 0x40 * i, 16 + i, i % 5);
		if (i % 2)
			main.survivor(190 + 10 * i, 0x200000 + 0x40 * i, 100 + i, i % 4);
		if (i % 4 == 3)
			thread.free(205 + 20 * i, 0x200000 + 0x40 * i);
	}
	main.put(mt_ev_fold{ 400, 0, 20, 320, 10, 32, 1, 0 });
	main.put(mt_ev_fold{ 420, 0, 30, 480, 10, 32, 2, 0 });
	main.put(mt_ev_young{ 310, 64, 500, 90 });
	main.put(mt_ev_mark{ 430, MT_MARK_PHASE, 0, str("phase") });
	main.cells({ cell(1, 30, 500), cell(2, 30, 420), cell(3, 5, 600) });
	head.fold_entry = 2;
	head.fold = cell(1, 31, 640);
	head.young_time = 620;
	head.young_bytes = 30;
	head.young_most = 90;
	head.young_since = 100;
	main.nursery({ young(590, 0x6000, 40, 1), young(610, 0x7000, 16, 1) }, head);
	Stream &child = w.fork(main, 650, 200);

	child.free(660, 0x6000).cells({ cell(1001, 3, 700) }).nursery({ young(670, 0x6000, 1) });
	thread.cells({ cell(2, 9, 690) });
	main.put(mt_ev_exit{ 800, MT_EXIT_EXIT, 0 });
}

} // namespace memtrace_test

#endif
