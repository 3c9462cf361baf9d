// Memory by line, on models made by hand.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include "analysis_model.h"

namespace
{

// "place|kind", with what is special about it: its row; NULL: none.
const rvalue *row(const Analysed &a, const std::string &wanted)
{
	r_for_each (p, a["places"]) {
		std::string name = std::string(r_get_string(p, "place")) + "|" +
				   r_get_string(p, "kind");

		if (r_get_bool(p, "imports"))
			name += "|imports";
		if (r_get_bool(p, "python_arenas"))
			name += "|arenas";
		if (name == wanted)
			return p;
	}
	return nullptr;
}

} // namespace

TEST(Places, StacksOfOneLineAreOneRow)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10), q = m.process("forked", 11);
	uint32_t lib = m.module("/l/libx.so"), f = m.code("/home/me/a.py", "f", 7);
	uint32_t caller = m.python(0, f),
		 callee = m.python(caller, m.code("/x/site-packages/l.py", "g", 9));

	m.use(m.site(m.native(0, lib, 0x10), caller), p, 5, { 3 }, 100);
	m.use(m.site(m.native(0, lib, 0x20), callee), p, 2, { 2 }, 100).at_peak_bytes = 1000;
	m.use(m.site(m.native(0, lib, 0x10), caller, MT_KIND_DEVICE), q, 1, { 1 }, 64);
	Analysed a(m);
	const rvalue *heap = row(a, "a.py:7|heap"), *device = row(a, "a.py:7|device");

	ASSERT_EQ(a["places"]->count, 2u);
	ASSERT_NE(heap, nullptr);
	ASSERT_NE(device, nullptr) << "another kind is another row";
	EXPECT_STREQ(r_get_string(heap, "place_function"), "f");
	EXPECT_EQ(r_get_int(heap, "sites"), 2) << "the nearest line of the user's is named";
	EXPECT_EQ(r_get_int(heap, "at_peak_bytes"), 1300);
	EXPECT_EQ(r_get_int(heap, "live_bytes"), 500);
	EXPECT_EQ(r_get_int(heap, "allocations"), 7);
	EXPECT_EQ(r_get_int(device, "live_bytes"), 64);
}

TEST(Places, LargestAtThePeakComeFirstAndTheOthersAreSummedUp)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10);

	for (uint32_t line = 1; line <= 5; line++)
		m.use(m.site(0, m.python("/a.py", "f", line)), p, 1, { 1 }, line * 10)
			.at_peak_bytes = 600 - line * 100;
	Analysed a(m, 2);
	const rvalue *rest = a["places_not_listed"];

	ASSERT_EQ(a["places"]->count, 2u);
	EXPECT_EQ(r_get_int(a["places"]->first, "at_peak_bytes"), 500);
	EXPECT_EQ(r_get_int(a["places"]->last, "at_peak_bytes"), 400);
	EXPECT_EQ(r_get_int(rest, "places"), 3);
	EXPECT_EQ(r_get_int(rest, "at_peak_bytes"), 600);
	EXPECT_EQ(r_get_int(rest, "live_bytes"), 120);
	EXPECT_EQ(Analysed(m)["places_not_listed"], nullptr);
}

TEST(Places, ArenasCountUnlessTheirObjectsAreKnownOneByOne)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10), python = m.module("/usr/lib/libpython3.11.so.1.0");
	uint32_t other = m.module("/usr/lib/libjemalloc.so.2");
	uint32_t line = m.python("/a.py", "f", 7);

	m.use(m.site(m.native(0, python, 0x10), line, MT_KIND_MMAP, true), p, 1, { 1 }, 1 << 20);
	m.use(m.site(m.native(0, other, 0x10), line, MT_KIND_MMAP, true), p, 1, { 1 }, 1 << 21);
	{
		Analysed a(m);

		ASSERT_EQ(a["places"]->count, 1u)
			<< "another allocator's blocks are counted themselves";
		ASSERT_NE(row(a, "a.py:7|mmap|arenas"), nullptr);
		EXPECT_EQ(r_get_int(row(a, "a.py:7|mmap|arenas"), "at_peak_bytes"), 1 << 20);
	}
	m.processes[p].kinds[MT_KIND_PYTHON].allocations = 1;
	EXPECT_EQ(Analysed(m)["places"]->count, 0u);
}

TEST(Places, ImportsStandApartFromTheLineTheyAreOn)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10);
	uint32_t line = m.python(0, m.code("/a.py", "<module>", 1));
	uint32_t import = m.python(line, m.code("<frozen importlib._bootstrap>", "_load", 2));
	uint32_t module = m.python(import, m.code("/x/site-packages/big.py", "<module>", 3));

	m.use(m.site(0, line), p, 1, { 1 }, 10);
	m.use(m.site(0, module), p, 1, { 1 }, 1000);
	Analysed a(m);

	ASSERT_NE(row(a, "a.py:1|heap|imports"), nullptr);
	EXPECT_EQ(r_get_int(row(a, "a.py:1|heap|imports"), "at_peak_bytes"), 1000);
	ASSERT_NE(row(a, "a.py:1|heap"), nullptr);
	EXPECT_EQ(r_get_int(row(a, "a.py:1|heap"), "at_peak_bytes"), 10);
}

TEST(Places, WithoutPythonItIsTheFunctionAndForVeryManyTheModule)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10), lib = m.module("/l/libx.so");
	uint64_t small = 0;

	for (uint32_t i = 0; i < 260; i++)
		m.use(m.site(m.native(0, lib, 0x100 + i), 0), p, 1, { 1 }, 5000 - i);
	for (uint32_t i = 200; i < 260; i++)
		small += 5000 - i;
	Analysed a(m);

	ASSERT_NE(row(a, "libx.so+0x100|heap"), nullptr);
	EXPECT_EQ(r_get_int(row(a, "libx.so+0x100|heap"), "at_peak_bytes"), 5000);
	ASSERT_NE(row(a, "libx.so|heap"), nullptr);
	EXPECT_EQ(r_get_int(row(a, "libx.so|heap"), "sites"), 60);
	EXPECT_EQ(r_get_int(row(a, "libx.so|heap"), "at_peak_bytes"), static_cast<int64_t>(small));
}

TEST(Places, ATensorsMemoryIsNotCountedTwice)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10);

	m.use(m.site(0, m.python("/a.py", "f", 7), MT_KIND_TENSOR), p, 1, { 1 }, 100);
	EXPECT_EQ(Analysed(m)["places"]->count, 0u);
}
