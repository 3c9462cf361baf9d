// Why forked workers copied, how far it has come, and what it could come to: models made by hand.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "analysis_model.h"

namespace
{

constexpr uint64_t MIB = 1024 * 1024;

// A main process that imported modules and then built data, and its forked workers.
struct Family {
	Family()
	{
		uint32_t interpreter = m.module("/usr/lib/libpython3.11.so.1.0");
		uint32_t library = m.module("/usr/lib/libnumbers.so");
		uint32_t alloc = m.native(0, interpreter, 0x10), make = m.native(0, library, 0x20);
		uint32_t importing = m.python("<frozen importlib._bootstrap>", "_load", 1);
		uint32_t line = m.python("train.py", "main", 7);

		m.process("main", 100);
		imports = m.site(alloc, importing, MT_KIND_MMAP, true);
		arenas = m.site(alloc, line, MT_KIND_MMAP, true);
		buffer = m.site(make, line);
		objects = m.site(alloc, line, MT_KIND_PYTHON);
	}

	struct Part {
		uint32_t site;
		uint64_t shared, copied; // MiB
	};

	// A worker and what it shared and copied of each site; free: MiB where nothing was alive.
	process_cow &worker(const std::vector<Part> &parts, uint64_t free = 0)
	{
		uint32_t id = m.process("worker", 200 + static_cast<uint32_t>(made.size()), 10);
		Made &w = made.emplace_back();
		process_cow &cow = w.cow;

		cow = {};
		cow.has_baseline = true;
		cow.reused = free * MIB;
		for (const Part &p : parts) {
			w.sites.push_back({ p.site, p.copied * MIB, 0 });
			if (p.site == imports || p.site == arenas)
				w.backing.push_back({ p.site, p.shared * MIB, p.copied * MIB });
			cow.shared += p.shared * MIB;
			cow.copied += p.copied * MIB;
		}
		cow.copied += free * MIB;
		cow.sites = w.sites.data();
		cow.site_count = w.sites.size();
		cow.backing = w.backing.data();
		cow.backing_count = w.backing.size();
		m.processes[id].cow = &cow;
		m.processes[id].parent = 0;
		return cow;
	}

	// What was copied, in MiB, ten seconds apart.
	void course(process_cow &cow, const std::vector<uint64_t> &mib)
	{
		std::vector<cow_point> &points = made.back().points;

		for (size_t i = 0; i < mib.size(); i++)
			points.push_back(
				{ static_cast<int64_t>(10 + 10 * i) * SECOND, mib[i] * MIB });
		cow.points = points.data();
		cow.point_count = points.size();
	}

	struct Made {
		process_cow cow;
		std::vector<cow_site> sites;
		std::vector<cow_backing> backing;
		std::vector<cow_point> points;
	};
	ModelMaker m;
	uint32_t imports, arenas, buffer, objects;
	std::deque<Made> made;
};

std::vector<const rvalue *> workers(const Analysed &a)
{
	std::vector<const rvalue *> out;

	r_for_each (w, r_get(a["cow"], "workers"))
		out.push_back(w);
	return out;
}

std::string cause(const std::vector<Family::Part> &parts, uint64_t free = 0)
{
	Family f;
	const char *text;

	f.worker(parts, free);
	Analysed a(f.m);
	text = r_get_string(workers(a)[0], "cause");
	return text ? text : "";
}

} // namespace

TEST(CowCause, IsReadOffFromWhatWasCopied)
{
	Family f;

	EXPECT_EQ(cause({ { f.arenas, 100, 90 }, { f.imports, 40, 4 } }), "refcount");
	EXPECT_EQ(cause({ { f.buffer, 100, 90 }, { f.arenas, 100, 4 } }), "writes");
	EXPECT_EQ(cause({ { f.arenas, 100, 4 } }, 60), "heap-reuse");
	EXPECT_EQ(cause({ { f.arenas, 100, 30 }, { f.buffer, 100, 30 } }, 30), "mixed");
	EXPECT_EQ(cause({ { f.arenas, 100, 1 } }), "") << "too little to ask";
}

// A collection copies what modules made as well as the program's data, and less of each than there
// is; a worker that reads the data to the last child copies that and leaves the modules' alone.
TEST(CowCause, ACollectionIsToldFromReading)
{
	Family f;

	EXPECT_EQ(cause({ { f.arenas, 100, 50 }, { f.imports, 40, 24 } }), "gc");
	EXPECT_EQ(cause({ { f.arenas, 100, 100 }, { f.imports, 40, 10 } }), "refcount")
		<< "its own code's objects are touched by running it";
	EXPECT_EQ(cause({ { f.arenas, 100, 98 }, { f.imports, 40, 24 } }), "mixed")
		<< "read as well as collected";
	EXPECT_EQ(cause({ { f.arenas, 100, 50 }, { f.imports, 1, 1 } }), "refcount")
		<< "so little of modules tells nothing";
}

TEST(CowFinding, NamesTheLineItsBytesAndTheWorkers)
{
	Family f;

	f.worker({ { f.arenas, 100, 90 }, { f.imports, 40, 1 } });
	f.worker({ { f.arenas, 100, 80 }, { f.imports, 40, 1 } });
	f.worker({ { f.arenas, 100, 2 } }); // copied next to nothing
	Analysed a(f.m);
	auto found = a.findings("cow-blowup");
	const rvalue *e;

	ASSERT_EQ(found.size(), 1u);
	EXPECT_EQ(
		std::string(r_get_string(found[0], "title")),
		"3 forked workers copied 172.0 MiB of what train.py:7 in main built (likely line)");
	EXPECT_EQ(r_get_int(found[0], "bytes"), static_cast<int64_t>(172 * MIB));
	e = r_get(found[0], "evidence");
	EXPECT_STREQ(r_get_string(e, "cause"), "refcount");
	EXPECT_EQ(r_get_int(e, "most_in_one_worker"), static_cast<int64_t>(90 * MIB));
}

TEST(CowFinding, ACollectionIsBlamedOnlyWhereItRan)
{
	Family f;

	f.worker({ { f.arenas, 100, 50 }, { f.imports, 40, 24 } });
	f.worker({ { f.arenas, 100, 1 }, { f.imports, 40, 1 } });
	Analysed a(f.m);
	auto found = a.findings("cow-blowup");

	ASSERT_EQ(found.size(), 1u);
	EXPECT_STREQ(r_get_string(r_get(found[0], "evidence"), "cause"), "gc");
	EXPECT_NE(std::string(r_get_string(found[0], "advice")).find("gc.freeze()"),
		  std::string::npos);
	ASSERT_EQ(r_get(found[0], "pids")->count, 1u);
	EXPECT_EQ(r_get(found[0], "pids")->first->u.integer, 200);
}

// The forecast is what can be copied by reading: arenas, of all workers that live at one time.
TEST(CowForecast, IsAllSmallObjectsOfTheWorkersThatLiveTogether)
{
	Family f;

	for (int i = 0; i < 3; i++)
		f.worker({ { f.arenas, 100, 10 }, { f.imports, 40, 1 }, { f.buffer, 500, 0 } });
	f.m.processes[3].start = 95 * SECOND; // begins when the others are gone
	f.m.processes[1].end = f.m.processes[2].end = 90 * SECOND;
	Analysed a(f.m);

	EXPECT_EQ(r_get_int(workers(a)[0], "countable_bytes"), static_cast<int64_t>(140 * MIB));
	EXPECT_EQ(r_get_int(a["cow"], "forecast_bytes"), static_cast<int64_t>(280 * MIB));
}

TEST(CowCourse, LevelsOffWhenTheLastThirdOfTheTimeBroughtNothing)
{
	struct {
		std::vector<uint64_t> mib;
		const char *said; // "": null
	} cases[] = {
		{ { 0, 60, 90, 90, 90, 90, 91 }, "level" },
		{ { 0, 10, 20, 30, 40, 50, 60 }, "rising" },
		{ { 0, 60, 60, 60, 60, 60, 90 }, "rising" },
		{ { 0, 90 }, "" }, // nobody looked in between
		{ { 0, 0, 1, 1, 1 }, "" }, // too little
	};

	for (const auto &c : cases) {
		Family f;
		process_cow &cow = f.worker({ { f.arenas, 200, c.mib.back() } });

		f.course(cow, c.mib);
		Analysed a(f.m);
		const rvalue *w = workers(a)[0];

		SCOPED_TRACE(c.said);
		EXPECT_EQ(r_has(w, "levelled_off"), *c.said != 0);
		if (*c.said) {
			EXPECT_EQ(r_get_bool(w, "levelled_off"), std::string(c.said) == "level");
			ASSERT_EQ(a.findings("cow-blowup").size(), 1u);
			EXPECT_STREQ(r_get_string(r_get(a.findings("cow-blowup")[0], "evidence"),
						  "levelled_off"),
				     std::string(c.said) == "level" ? "yes" : "no");
		}
	}
}

TEST(CowCourse, WhereNearlyAllIsCopiedThereIsNoMoreToCome)
{
	Family f;
	process_cow &cow = f.worker({ { f.arenas, 100, 95 } });

	f.course(cow, { 0, 95 });
	f.course(f.worker({ { f.arenas, 100, 50 } }), { 0, 50 });
	Analysed a(f.m);

	EXPECT_TRUE(r_get_bool(workers(a)[0], "levelled_off"));
	EXPECT_FALSE(r_has(workers(a)[1], "levelled_off"));
}

TEST(EagerCopy, IsWhatTheForkItselfCopied)
{
	Family f;

	f.worker({ { f.arenas, 100, 1 } }).eager = 20 * MIB;
	f.worker({ { f.arenas, 100, 1 } }).eager = 12 * MIB;
	f.worker({ { f.arenas, 100, 1 } }).eager = 1 * MIB; // stacks and the like
	process_cow &unknown = f.worker({ { f.arenas, 100, 1 } });
	unknown.has_baseline = false; // nobody looked at once: not known, not none
	unknown.eager = 0;
	Analysed a(f.m);
	auto found = a.findings("eager-copy");

	ASSERT_EQ(found.size(), 1u);
	EXPECT_EQ(r_get_int(found[0], "bytes"), static_cast<int64_t>(32 * MIB));
	EXPECT_NE(std::string(r_get_string(found[0], "advice")).find("MADV_DONTFORK"),
		  std::string::npos);
	EXPECT_FALSE(r_has(workers(a)[3], "eager_bytes"));
	EXPECT_TRUE(r_has(workers(a)[2], "eager_bytes"));
}
