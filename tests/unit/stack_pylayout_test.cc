/*
 * preload/stack/pylayout.c: where an interpreter says its objects lie. The words are those that stand
 * at the start of _PyRuntime: for 3.13 in CPython 3.13.0's own libpython, for the others what the
 * published headers of 3.14.10 and 3.15.2 (pycore_debug_offsets.h) compile to, with and without
 * Py_GIL_DISABLED. What is expected was computed from the same headers by offsetof, field by field.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <string>
#include <vector>

extern "C" {
#include "stack/python.h"
}

namespace
{

using Words = std::vector<uint64_t>;
using Layout = struct mt_python_layout; /* there is a variable of that name */

constexpr uint64_t kCookie = 8750607829840520312u; /* "xdebugpy" */

const Words k313 = { kCookie, 51183856, 0,    283320, 608, 632, 194968, 7272, 7264, 7344, 7400,
		     7656,    7640,	7648, 16,     7752, 0,	 7768,	 7760, 304,  0,	   8,
		     16,      72,	152,  160,    232, 32,	80,	8,    0,    56,	  72,
		     70,      208,	112,  120,    128, 136, 68,	52,   96,   104,  200,
		     16,      8,	416,  24,     88,  168, 32,	24,   16,   40,	  24,
		     16,      48,	32,   40,     24,  16,	32,	16,   24,   40,	  16,
		     32,      64,	32,   16,     40,  240, 200 };

const Words k314 = { kCookie, 51251952, 0,   316616, 784, 808, 225864, 7280, 7272, 7344, 7360, 7408,
		     7688,    7672,	7680, 16,    7784, 0,	7800,	7792, 7992, 0,	  832,	0,
		     8,	      16,	72,  152,    160, 232, 32,	88,   8,    0,	  56,	80,
		     74,      64,	0,   216,    112, 120, 128,	136,  68,   52,	  96,	104,
		     208,     0,	16,  8,	     416, 24,  88,	168,  40,   32,	  16,	40,
		     24,      16,	200, 24,     40,  32,  48,	32,   40,   24,	  16,	32,
		     16,      24,	40,  16,     32,  64,  32,	16,   40,   264,  192,	160,
		     24,      72,	67,  0,	     8,	  24,  304,	8076, 0,    4,	  512 };

const Words k314t = { kCookie, 51251952, 1,    365624, 784,  808, 249976, 7280, 7272, 7344, 7360,
		      7408,    7712,	 7696, 7704,   16,   7808, 0,	  7832, 7824, 8024, 17300,
		      832,     0,	 8,    16,     72,   152, 160,	  232,	32,   88,   8,
		      0,       56,	 80,   78,     64,   72,  240,	  128,	136,  144,  152,
		      84,      68,	 112,  120,    232,  224, 32,	  24,	432,  40,   104,
		      184,     56,	 48,   32,     56,   40,  32,	  216,	40,   56,   48,
		      64,      48,	 56,   40,     32,   48,  32,	  40,	56,   32,   48,
		      80,      48,	 32,   56,     288,  192, 176,	  40,	88,   83,   0,
		      8,       24,	 304,  8108,   0,    4,	  512 };

const Words k315 = { kCookie, 51315440, 0,   346560, 912, 936,	 226232, 7272, 7264, 7336, 7352, 7400,
		     7592,    7576,	7584, 16,    7736, 0,	 7752,	 7744, 7944, 0,	   888,	 0,
		     8,	      16,	72,  80,     88,  96,	 176,	 184,  256,  32,   36,	 40,
		     136,     288,	0,   88,     8,	  0,	 56,	 80,   74,   64,   0,	 216,
		     112,     120,	128, 136,    68,  52,	 96,	 104,  208,  0,	   16,	 8,
		     424,     24,	88,  168,    32,  288,	 944,	 888,  40,   32,   16,	 40,
		     24,      16,	200, 24,     40,  32,	 48,	 32,   40,   24,   16,	 32,
		     16,      24,	40,  16,     32,  64,	 32,	 16,   40,   56,   176,	 112,
		     120,     1120,	104, 160,    24,  72,	 67,	 0,    8,    24,   344,	 8028,
		     0,	      4,	512 };

const Words k315t = { kCookie, 51315440, 1,    409296, 912,  936, 250328, 7272, 7264, 7336, 7352,
		      7400,    7592,	 7576, 7584,   16,   7736, 0,	  7760, 7752, 7952, 17252,
		      888,     0,	 8,    16,     72,   80,  88,	  96,	176,  184,  256,
		      32,      36,	 40,   136,    288,  0,	  88,	  8,	0,    56,   80,
		      78,      64,	 72,   240,    128,  136, 144,	  152,	84,   68,   112,
		      120,     232,	 224,  32,     24,   440, 40,	  104,	184,  48,   304,
		      968,     904,	 56,   48,     32,   56,  40,	  32,	216,  40,   56,
		      48,      64,	 48,   56,     40,   32,  48,	  32,	40,   56,   32,
		      48,      80,	 48,   32,     56,   72,  176,	  112,	120,  224,  104,
		      176,     40,	 88,   83,     0,    8,	  24,	  344,	8036, 0,    4,
		      512 };

/* Everything in one line, so that a difference is seen at once. */
std::string Text(const Layout &l)
{
	std::string text;

	for (unsigned v :
	     { unsigned(l.minor), unsigned(l.top), unsigned(int(l.cframe)), unsigned(l.thread),
	       unsigned(l.back), unsigned(l.code), unsigned(l.ip), unsigned(l.ip_kind),
	       unsigned(l.entry), unsigned(l.entry_kind), unsigned(l.file), unsigned(l.name),
	       unsigned(l.first_line), unsigned(l.lines), unsigned(l.lines_kind),
	       unsigned(l.start), unsigned(l.copies), unsigned(l.ascii), unsigned(l.compact),
	       unsigned(l.str_state), unsigned(l.str_length), unsigned(l.object_type),
	       unsigned(l.object_size), unsigned(l.bytes_data), unsigned(l.type_name),
	       unsigned(l.type_dealloc), unsigned(l.free_threaded) })
		text += std::to_string(int(v)) + " ";
	return text;
}

const char *Read(const Words &words, unsigned minor, Layout *l)
{
	return mt_python_layout_find(l, minor, uint32_t(words[1]), words.data(), words.size());
}

Layout Expected(unsigned minor, bool free_threaded)
{
	Layout l = {};
	uint16_t more = free_threaded ? 16 : 0; /* the head of an object is that much longer */

	l.minor = uint16_t(minor);
	l.top = 72;
	l.cframe = -1;
	l.thread = minor == 15 ? 176 : 152;
	l.back = 8;
	l.code = 0;
	l.ip = 56;
	l.ip_kind = MT_PYTHON_ADDRESS;
	l.entry = minor == 13 ? 70 : free_threaded ? 78 : 74;
	l.entry_kind = MT_PYTHON_OWNER;
	l.file = uint16_t(112 + more);
	l.name = uint16_t(128 + more);
	l.first_line = uint16_t(68 + more);
	l.lines = uint16_t(136 + more);
	l.lines_kind = MT_LINES_311;
	l.start = minor == 13 ? 200 : free_threaded ? 232 : 208;
	l.copies = free_threaded ? 224 : 0;
	l.ascii = uint16_t(40 + more);
	l.compact = uint16_t(56 + more);
	l.str_state = uint16_t(32 + more);
	l.str_length = uint16_t(16 + more);
	l.object_type = uint16_t(8 + more);
	l.object_size = uint16_t(16 + more);
	l.bytes_data = uint16_t(32 + more);
	l.type_name = uint16_t(24 + more);
	l.type_dealloc = uint16_t(48 + more);
	l.free_threaded = free_threaded;
	return l;
}

struct Build {
	const char *name;
	const Words *words;
	unsigned minor;
	bool free_threaded;
};

const Build kBuilds[] = { { "3.13", &k313, 13, false },
			  { "3.14", &k314, 14, false },
			  { "3.14t", &k314t, 14, true },
			  { "3.15", &k315, 15, false },
			  { "3.15t", &k315t, 15, true } };

TEST(PythonLayout, IsWhatTheInterpreterSays)
{
	for (const Build &b : kBuilds) {
		Layout l;

		ASSERT_EQ(Read(*b.words, b.minor, &l), nullptr) << b.name;
		EXPECT_EQ(Text(l), Text(Expected(b.minor, b.free_threaded))) << b.name;
	}
}

TEST(PythonLayout, OfTheTableAndOfTheInterpreterAreOneFor313)
{
	Layout row, said;

	ASSERT_EQ(mt_python_layout_row(&row, 13), 0);
	ASSERT_EQ(Read(k313, 13, &said), nullptr);
	EXPECT_EQ(Text(row), Text(said));
}

TEST(PythonLayout, OfOlderVersionsIsTheTables)
{
	for (unsigned minor = 7; minor <= 12; minor++) {
		Layout row, found;

		ASSERT_EQ(mt_python_layout_row(&row, minor), 0);
		ASSERT_EQ(mt_python_layout_find(&found, minor, 0, nullptr, 0), nullptr);
		EXPECT_EQ(Text(row), Text(found));
	}
	Layout l;

	EXPECT_NE(mt_python_layout_find(&l, 6, 0, nullptr, 0), nullptr);
}

TEST(PythonLayout, IsNotGuessedForVersionsToCome)
{
	Layout l;
	Words words = k315;

	words[1] += 1 << 16;
	EXPECT_NE(Read(words, 16, &l), nullptr);
}

/* A layout read by the rules of another version's would be nonsense: it is seen as such. */
TEST(PythonLayout, OfAnotherVersionIsRefused)
{
	for (const Build &b : kBuilds) {
		for (unsigned minor = 13; minor <= 15; minor++) {
			Layout l;
			Words padded = *b.words;

			if (minor == b.minor)
				continue;
			padded.resize(128);
			EXPECT_NE(Read(padded, minor, &l), nullptr) << b.name << " as " << minor;
		}
	}
}

TEST(PythonLayout, OfAnotherPatchReleaseThanTheProgramsIsRefused)
{
	Layout l;

	EXPECT_NE(mt_python_layout_find(&l, 14, uint32_t(k314[1]) + 256, k314.data(), k314.size()),
		  nullptr);
}

TEST(PythonLayout, ThatIsCutOffOrHasNoCookieIsRefused)
{
	Layout l;
	Words words = k314;

	words[0]++;
	EXPECT_NE(Read(words, 14, &l), nullptr);
	words = k314;
	words.pop_back();
	EXPECT_NE(Read(words, 14, &l), nullptr);
	EXPECT_NE(mt_python_layout_find(&l, 14, uint32_t(k314[1]), nullptr, 0), nullptr);
}

/* A word put in or taken out anywhere before the last one that is used shifts what follows. */
TEST(PythonLayout, WithAWordMoreOrLessIsRefused)
{
	for (const Build &b : kBuilds) {
		size_t used = b.minor == 13 ? 70 : b.minor == 14 ? 80 : 92;

		for (size_t at = 3; at <= used; at++) {
			Layout l;
			Words more = *b.words, less = *b.words;

			more.insert(more.begin() + long(at), 24);
			less.erase(less.begin() + long(at));
			less.push_back(0);
			for (const Words *words : { &more, &less }) {
				if (Read(*words, b.minor, &l))
					continue;
				EXPECT_EQ(Text(l), Text(Expected(b.minor, b.free_threaded)))
					<< b.name << ": word " << at;
			}
		}
	}
}

TEST(PythonLayout, FindsTheWidthInAStringsState)
{
	auto state = [](int shift, unsigned width, bool ascii) {
		return uint32_t(1 | (width | 8u | (ascii ? 16u : 0)) << shift);
	};

	for (int shift : { 2, 8, 16 }) {
		EXPECT_EQ(mt_python_str_shift(state(shift, 1, true)), shift);
		EXPECT_EQ(mt_python_str_shift(state(shift, 2, false)), shift);
		EXPECT_EQ(mt_python_str_shift(state(shift, 4, false)), shift);
	}
	EXPECT_EQ(mt_python_str_shift(3), -1);
	EXPECT_EQ(mt_python_str_shift(0), -1);
}

} // namespace
