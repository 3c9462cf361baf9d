/*
 * Who is whose child, how it ended, and what it was for.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <string>

#include "support/replayed.h"

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

/* ---- ends and children ----------------------------------------------------------------------- */

TEST(ModelTree, HowAProcessEndedIsWhatItsParentWasTold)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &killed = w.fork(parent, 10, 200);
	Stream &left = w.fork(parent, 20, 201);
	Stream &unknown = w.fork(parent, 30, 202);

	killed.alloc(40, 0x1000, 1);
	left.put(mt_ev_exit{ 50, MT_EXIT_UNDERSCORE, 3 });
	unknown.alloc(50, 0x1000, 1);
	parent.put(mt_ev_wait{ 60, 200, 9, 0 });
	parent.put(mt_ev_exit{ 70, MT_EXIT_EXIT, 0 });
	Replayed run(w);

	EXPECT_EQ(run.P(200).end_kind, END_SIGNAL);
	EXPECT_EQ(run.P(200).end_code, 9);
	EXPECT_EQ(run.P(201).end_kind, END_EXIT);
	EXPECT_EQ(run.P(201).end_code, 3);
	EXPECT_EQ(run.P(202).end_kind, END_UNKNOWN);
	EXPECT_EQ(run.P(100).end_kind, END_EXIT);
	ASSERT_EQ(run.P(100).child_count, 3u);
	EXPECT_EQ(run.P(100).children[0].process, run.P(200).id);
	EXPECT_EQ(run.P(100).children[2].process, run.P(202).id);
}

TEST(ModelTree, AnExecStartsAnotherImageOfTheSamePid)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &forked = w.fork(parent, 10, 200);
	mt_ev_process ev = {};

	forked.alloc(20, 0x1000, 64).put(mt_ev_exec{ 30, 200, 1, str("/bin/true") });
	ev.time = 40;
	ev.pid = 200;
	ev.ppid = 100;
	ev.reason = MT_PROCESS_EXEC;
	ev.parent = 2;
	w.process(ev).alloc(50, 0x1000, 5).put(mt_ev_exit{ 60, 0, 0 });
	parent.put(mt_ev_wait{ 70, 200, 0, 0 });
	Replayed run(w);

	ASSERT_EQ(run.m->process_count, 3u);
	const process &old_image = run.m->processes[1], &image = run.m->processes[2];

	EXPECT_EQ(old_image.end_kind, END_EXEC);
	EXPECT_EQ(image.image_of, old_image.id);
	EXPECT_EQ(image.parent, run.P(100).id);
	EXPECT_EQ(image.end_kind, END_EXIT);
	EXPECT_EQ(image.live_bytes, 5u);
	EXPECT_EQ(image.inherited_live_count, 0u);
	EXPECT_STREQ(image.role, "exec");
	ASSERT_EQ(old_image.child_count, 1u);
	EXPECT_EQ(old_image.children[0].process, image.id);
	EXPECT_STREQ(old_image.children[0].path, "/bin/true");
}

TEST(ModelTree, AShellsChildIsFoundThoughItsEnvironmentNamesTheShell)
{
	TraceWriter w;
	Stream &shell = w.process(Root());
	Stream &forked = w.fork(shell, 10, 200);
	mt_ev_process ev = {};

	forked.put(mt_ev_exec{ 30, 200, 1, str("/bin/ls") });
	ev.time = 40;
	ev.pid = 200;
	ev.ppid = 100;
	ev.reason = MT_PROCESS_EXEC;
	ev.parent = 1;
	w.process(ev).alloc(50, 0x1000, 5);
	ev.time = 60;
	ev.pid = 300;
	w.process(ev).alloc(70, 0x1000, 5);
	Replayed run(w);

	EXPECT_EQ(run.m->processes[2].image_of, 1u);
	EXPECT_EQ(run.m->processes[2].parent, 0u);
	EXPECT_EQ(run.m->processes[1].end_kind, END_EXEC);
	EXPECT_EQ(run.m->processes[1].children[0].process, 2u);
	EXPECT_EQ(run.m->processes[3].image_of, NO_ID);
	EXPECT_EQ(run.m->processes[3].parent, 0u);
}

TEST(ModelTree, APidUsedAgainIsAnotherProcess)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &first = w.fork(parent, 10, 200);

	first.alloc(20, 0x1000, 1);
	parent.put(mt_ev_wait{ 5000000, 200, 9, 0 });
	Stream &second = w.fork(parent, 10000000, 200);

	second.alloc(10000020, 0x1000, 1);
	parent.put(mt_ev_wait{ 15000000, 200, 0, 7 });
	Replayed run(w);

	EXPECT_EQ(run.m->processes[1].end_kind, END_SIGNAL);
	EXPECT_EQ(run.m->processes[2].end_kind, END_EXIT);
	EXPECT_EQ(run.m->processes[2].end_code, 7);
}

TEST(ModelTree, WhatHappenedToTheNextHolderOfAPidIsNotTakenForIt)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &first = w.fork(parent, 10, 200);

	first.alloc(20, 0x1000, 1);
	Stream &second = w.fork(parent, 10000000, 200);

	second.alloc(10000020, 0x1000, 1);
	parent.put(mt_ev_wait{ 15000000, 200, 9, 0 });
	Replayed run(w);

	EXPECT_EQ(run.m->processes[1].end_kind, END_UNKNOWN);
	EXPECT_EQ(run.m->processes[2].end_kind, END_SIGNAL);
}

TEST(ModelTree, ASpawnedChildThatNeverReportedIsKnown)
{
	TraceWriter w;

	w.process(Root()).put(mt_ev_spawn{ 10, 300, 0, str("/bin/static") });
	Replayed run(w);

	ASSERT_EQ(run.P(100).child_count, 1u);
	EXPECT_EQ(run.P(100).children[0].process, NO_ID);
	EXPECT_FALSE(run.P(100).children[0].traced);
}

/* ---- workers --------------------------------------------------------------------------------- */

/* A stack as the DataLoader has it when it forks; its innermost node's id. */
uint64_t LoaderStack(Stream &s)
{
	s.code(1, "/home/me/train.py", "main");
	s.code(2, "/venv/lib/torch/utils/data/dataloader.py", "__init__");
	s.code(3, "/usr/lib/python3.11/multiprocessing/process.py", "start");
	s.code(4, "/usr/lib/python3.11/multiprocessing/popen_fork.py", "_launch");
	for (uint64_t id = 1; id <= 4; id++)
		s.put(mt_ev_pynode{ id, id - 1, id, 10, 0 });
	return 4;
}

/* accelerate, lightning and others go over the user's loader in a file of their own. */
TEST(ModelRoles, TheLoadersLineIsTheUsersUnlessAllIsAPackage)
{
	for (bool has_user : { true, false }) {
		TraceWriter w;
		Stream &main = w.process(Root());

		main.code(1, has_user ? "/home/me/train.py" : "/v/lib/python3.11/runpy.py", "main");
		main.code(2, "/v/lib/python3.11/site-packages/accelerate/data_loader.py",
			  "__iter__");
		main.code(3, "/v/lib/python3.11/site-packages/torch/utils/data/dataloader.py",
			  "__init__");
		main.code(4, "/v/lib/python3.11/multiprocessing/popen_fork.py", "_launch");
		for (uint64_t id = 1; id <= 4; id++)
			main.put(mt_ev_pynode{ id, id - 1, id, 10, 0 });
		Stream &worker = w.fork(main, 100, 200, 4);
		worker.alloc(200, 0x1000, 1, 0, 1);
		worker.put(mt_ev_exit{ 300, MT_EXIT_UNDERSCORE, 0 });
		Replayed run(w);

		EXPECT_STREQ(run.P(200).role, "dataloader-worker");
		EXPECT_EQ(run.P(200).worker.node, has_user ? 1u : 2u);
	}
}

TEST(ModelRoles, WorkersAreNumberedInOrderOfForkAndByGeneration)
{
	TraceWriter w;
	Stream &main = w.process(Root());
	uint64_t stack = LoaderStack(main);

	for (uint32_t epoch = 0; epoch < 2; epoch++) {
		uint64_t t = epoch * 1000 + 100;

		for (uint32_t k = 0; k < 2; k++) {
			Stream &worker = w.fork(main, t + k * 10, 200 + 10 * epoch + k, stack);

			worker.alloc(t + 100, 0x1000, 1 + epoch, 0, 1);
			worker.put(mt_ev_exit{ t + 200, MT_EXIT_UNDERSCORE, 0 });
		}
		for (uint32_t k = 0; k < 2; k++)
			main.put(mt_ev_wait{ t + 300, 200 + 10 * epoch + k, 0, 0 });
	}
	Replayed run(w);

	for (uint32_t epoch = 0; epoch < 2; epoch++) {
		for (uint32_t k = 0; k < 2; k++) {
			const process &p = run.P(200 + 10 * epoch + k);

			EXPECT_STREQ(p.role, "dataloader-worker");
			EXPECT_EQ(p.worker.index, static_cast<int32_t>(k));
			EXPECT_EQ(p.worker.of, 2);
			EXPECT_EQ(p.generation, epoch);
			EXPECT_STREQ(p.worker.start_method, "fork");
			ASSERT_NE(p.worker.loader, nullptr);
			EXPECT_EQ(std::string(p.worker.loader).rfind("train.py", 0), 0u);
		}
	}
	ASSERT_EQ(run.m->site_count, 1u);
	EXPECT_EQ(run.m->sites[0].live_bytes, 4u) << "only the latest generation";
	EXPECT_EQ(run.m->sites[0].allocations, 4u) << "but all of them allocated";
	EXPECT_EQ(run.m->sites[0].use_count, 4u);
}

TEST(ModelRoles, FramesThatWereLeftOutAreKeptAsSuch)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.code(1, "a.py", "f");
	s.put(mt_ev_pynode{ 1, 0, 1, 2, 0 });
	s.put(mt_ev_pynode{ 2, 1, 0, 0, 0 });
	s.put(mt_ev_pynode{ 3, 2, 1, 6, 0 });
	s.alloc(10, 0x1000, 1, 0, 3);
	Replayed run(w);

	ASSERT_EQ(run.m->site_count, 1u);
	const python_node *n = run.m->python;
	uint32_t inner = run.m->sites[0].python;

	EXPECT_EQ(n[inner].offset, 6u);
	EXPECT_EQ(n[n[inner].parent].code, NO_ID);
	EXPECT_EQ(n[n[n[inner].parent].parent].offset, 2u);
	EXPECT_EQ(run.count(COUNT_MISSING_ENTRIES), 0u);
}

TEST(ModelRoles, ARingOfStacksIsDamageAndHasAnEnd)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.code(1, "a.py", "f");
	s.put(mt_ev_pynode{ 1, 2, 1, 2, 0 }).put(mt_ev_pynode{ 2, 1, 1, 4, 0 });
	s.put(mt_ev_frame{ 1, 0, 0x1234, 0 });
	s.put(mt_ev_node{ 1, 2, 1 }).put(mt_ev_node{ 2, 1, 1 });
	s.alloc(10, 0x1000, 1, 1, 1);
	Replayed run(w);

	EXPECT_GE(run.count(COUNT_MISSING_ENTRIES), 2u);
	EXPECT_FALSE(run.m->traces[0].complete);
	uint32_t outermost = run.m->sites[0].native;

	while (run.m->native[outermost].parent)
		outermost = run.m->native[outermost].parent;
	EXPECT_EQ(run.m->native[outermost].offset, static_cast<uint64_t>(MT_FRAME_LOST));
}

TEST(ModelRoles, WhatAWorkerForksIsNoWorker)
{
	TraceWriter w;
	Stream &main = w.process(Root());
	Stream &worker = w.fork(main, 10, 200, LoaderStack(main));

	worker.code(1001, "/home/me/data.py", "load");
	worker.put(mt_ev_pynode{ 1001, 4, 1001, 0, 0 });
	w.fork(worker, 20, 300, 1001);
	Replayed run(w);

	EXPECT_STREQ(run.P(200).role, "dataloader-worker");
	EXPECT_STREQ(run.P(300).role, "forked");
}

/* A spawned or served worker has no stack of its parent's: what asked for it was seen there. */
TEST(ModelRoles, ASpawnedWorkersLoaderIsThatOfTheLaunchBeforeIt)
{
	TraceWriter w;
	Stream &main = w.process(Root());
	uint64_t stack = LoaderStack(main);

	for (uint32_t k = 0; k < 2; k++) {
		mt_ev_process ev = {};

		main.put(mt_ev_launch{ 100 + 10 * k, stack });
		main.put(mt_ev_spawn{ 105 + 10 * k, 200 + k, 1, str("/usr/bin/python3") });
		ev.time = 1000 - 10 * k; /* the second begins first */
		ev.pid = 200 + k;
		ev.ppid = 100;
		ev.reason = MT_PROCESS_EXEC;
		ev.parent = 1;
		Stream &s = w.process(ev);

		s.fact("cmdline", std::string("python\0-c\0from multiprocessing.spawn import "
					      "spawn_main; spawn_main()",
					      67));
		s.code(1, "/usr/lib/python3.11/multiprocessing/process.py", "run");
		s.code(2, "/venv/lib/torch/utils/data/_utils/worker.py", "_worker_loop");
		s.put(mt_ev_pynode{ 1, 0, 1, 10, 0 }).put(mt_ev_pynode{ 2, 1, 2, 10, 0 });
		s.alloc(2000, 0x1000, 64, 0, 2);
	}
	Replayed run(w);

	for (uint32_t k = 0; k < 2; k++) {
		const process &p = run.P(200 + k);

		EXPECT_STREQ(p.role, "dataloader-worker");
		EXPECT_STREQ(p.worker.start_method, "spawn");
		EXPECT_EQ(p.worker.index, static_cast<int32_t>(k));
		EXPECT_EQ(p.worker.of, 2);
		ASSERT_NE(p.worker.loader, nullptr);
		EXPECT_EQ(std::string(p.worker.loader).rfind("train.py", 0), 0u);
	}
}

/* What the worker says of itself counts more than the order of beginnings. */
TEST(ModelRoles, AWorkersOwnNumberCounts)
{
	TraceWriter w;
	Stream &main = w.process(Root());
	uint64_t stack = LoaderStack(main);

	for (uint32_t k = 0; k < 2; k++)
		w.fork(main, 100 + 10 * k, 200 + k, stack)
			.alloc(200, 0x1000, 1)
			.fact("worker", k ? "0" : "2")
			.fact("workers", "3");
	Replayed run(w);

	EXPECT_EQ(run.P(200).worker.index, 2);
	EXPECT_EQ(run.P(201).worker.index, 0);
	EXPECT_EQ(run.P(201).worker.of, 3) << "one of them was never seen";
}

TEST(ModelRoles, WorkersThatAreThreadsAreCounted)
{
	TraceWriter w;
	Stream &main = w.process(Root());

	main.code(1, "/usr/lib/python3.14/threading.py", "run");
	main.code(2, "/venv/lib/torch/utils/data/_utils/worker.py", "_worker_loop");
	main.put(mt_ev_pynode{ 1, 0, 1, 10, 0 }).put(mt_ev_pynode{ 2, 1, 2, 10, 0 });
	for (uint32_t k = 0; k < 3; k++) {
		const std::string name = k < 2 ? "pt_thread_data_" : "pt_data_pin";
		mt_ev_thread t = {};

		t.time = 10;
		t.tid = 300 + k;
		t.name = str(name);
		main.thread(10, 300 + k).put(t).alloc(20 + k, 0x1000 + 64 * k, 64, 0, 2);
	}
	Replayed run(w);

	EXPECT_STREQ(run.P(100).role, "main");
	EXPECT_FALSE(run.P(100).worker.is);
	EXPECT_EQ(run.P(100).worker.threads, 2u);
}

TEST(ModelRoles, ARankIsWhereItsNumberBegins)
{
	TraceWriter w;
	Stream &launcher = w.process(Root());
	mt_ev_process ev = {};

	ev.time = 10;
	ev.pid = 200;
	ev.ppid = 100;
	ev.reason = MT_PROCESS_EXEC;
	ev.parent = 1;
	Stream &rank = w.process(ev).fact("rank", "3").fact("world_size", "4");

	ev.time = 20;
	ev.pid = 300;
	ev.parent = 2;
	w.process(ev).fact("rank", "3").fact("world_size", "4");
	(void)launcher;
	(void)rank;
	Replayed run(w);

	EXPECT_STREQ(run.P(100).role, "main");
	EXPECT_EQ(run.P(100).rank, -1);
	EXPECT_STREQ(run.P(200).role, "rank");
	EXPECT_EQ(run.P(200).rank, 3);
	EXPECT_STREQ(run.P(300).role, "exec");
	EXPECT_EQ(run.P(300).rank, 3);
}

} // namespace
