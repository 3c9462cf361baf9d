// Lines of Python code, against what six interpreters say themselves.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "symbols/python_lines.h"

namespace
{

struct Fixture {
	const char *version, *code;
	mt_line_kind kind;
	uint32_t first_line;
	const char *table, *lines;
};

const Fixture fixtures[] = {
#define PYTHON_LINES(version, code, kind, first_line, table, lines)                                \
	{ version, code, kind, first_line, table, lines },
#include "python_lines_fixture.def"
#undef PYTHON_LINES
};

std::vector<uint8_t> bytes_of(const char *hex)
{
	std::vector<uint8_t> out;

	for (; *hex; hex += 2)
		out.push_back(static_cast<uint8_t>(std::stoul(std::string(hex, 2), nullptr, 16)));
	return out;
}

} // namespace

TEST(PythonLines, EveryOffsetHasTheLineThatItsInterpreterSays)
{
	size_t checked = 0;

	for (const Fixture &f : fixtures) {
		std::vector<uint8_t> table = bytes_of(f.table);
		std::istringstream lines(f.lines);
		std::string item;
		uint32_t at = 0, line = 0;

		while (lines >> item) {
			size_t colon = item.find(':');
			uint32_t to = static_cast<uint32_t>(std::stoul(item.substr(0, colon)));

			for (; at < to; at += 2, checked++)
				ASSERT_EQ(python_line(f.kind, table.data(), table.size(),
						      f.first_line, at),
					  line)
					<< f.version << " " << f.code << " at " << at;
			if (item.substr(colon + 1) != "end")
				line = static_cast<uint32_t>(std::stoul(item.substr(colon + 1)));
		}
	}
	EXPECT_GT(checked, 4000u);
}

TEST(PythonLines, DamagedTablesAreReadWithinTheirBounds)
{
	for (const Fixture &f : fixtures) {
		std::vector<uint8_t> table = bytes_of(f.table);

		for (size_t len = 0; len <= table.size(); len++) {
			std::vector<uint8_t> cut(table.begin(),
						 table.begin() + static_cast<long>(len));

			for (int kind = MT_LINES_NONE; kind <= MT_LINES_311; kind++)
				for (uint32_t at = 0; at < 64; at += 2)
					python_line(static_cast<mt_line_kind>(kind), cut.data(),
						    len, f.first_line, at);
		}
	}
}

TEST(PythonLines, WithoutATableThereIsNoLine)
{
	EXPECT_EQ(python_line(MT_LINES_NONE, nullptr, 0, 7, 0), 0u);
	EXPECT_EQ(python_line(MT_LINES_310, nullptr, 0, 7, 0), 0u);
	EXPECT_EQ(python_line(MT_LINES_311, nullptr, 0, 7, 0), 0u);
	EXPECT_EQ(python_line(MT_LINES_LNOTAB, nullptr, 0, 7, 0), 7u); /* all on the first line */
}

TEST(PythonLines, AVarintThatNeverEndsIsNoLine)
{
	std::vector<uint8_t> table(64, 0x7f);

	table[0] = 0x80 | 14 << 3;
	EXPECT_EQ(python_line(MT_LINES_311, table.data(), table.size(), 1, 0), 0u);
}
