// The configuration: values, units, defaults, and that a bad value leaves the default in place.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <string.h>

#include <string>
#include <vector>

extern "C" {
#include "core/config.h"
}

namespace {

void Read(std::vector<const char *> entries)
{
	entries.push_back(nullptr);
	mt_config_read(const_cast<char *const *>(entries.data()));
}

} // namespace

TEST(Config, DefaultsAreTheOnesOfTheTable)
{
	Read({ "PATH=/bin", "MEMTRACEX=1" });
	EXPECT_STREQ(mt_config.out, "trace.bin");
	EXPECT_EQ(mt_config.mode, MT_MODE_FULL);
	EXPECT_EQ(mt_config.events, MT_EVENTS_FOLDED);
	EXPECT_EQ(mt_config.python, MT_PYTHON_FRAMES);
	EXPECT_EQ(mt_config.sample_bytes, 512 * 1024);
	EXPECT_EQ(mt_config.depth, 128);
	EXPECT_EQ(mt_config.interval, 1000000000);
	EXPECT_EQ(mt_config.cow_interval, 30000000000);
	EXPECT_EQ(mt_config.gpu, 1);
	EXPECT_EQ(mt_config.warn, 0);
}

TEST(Config, SizesTakePowersOf1024)
{
	Read({ "MEMTRACE_MAX_BYTES=3K" });
	EXPECT_EQ(mt_config.max_bytes, 3072);
	Read({ "MEMTRACE_MAX_BYTES=2m" });
	EXPECT_EQ(mt_config.max_bytes, 2 << 20);
	Read({ "MEMTRACE_MAX_BYTES=5G" });
	EXPECT_EQ(mt_config.max_bytes, INT64_C(5) << 30);
}

TEST(Config, SecondsTakeAFraction)
{
	Read({ "MEMTRACE_INTERVAL=0.25" });
	EXPECT_EQ(mt_config.interval, 250000000);
	Read({ "MEMTRACE_INTERVAL=10" });
	EXPECT_EQ(mt_config.interval, 10000000000);
}

TEST(Config, BadValuesLeaveTheDefault)
{
	for (const char *bad : { "", "x", "12x", "-1", "99999999999999999999", "8388608T" }) {
		std::string entry = std::string("MEMTRACE_SAMPLE_BYTES=") + bad;

		Read({ entry.c_str() });
		EXPECT_EQ(mt_config.sample_bytes, 512 * 1024) << entry;
	}
	Read({ "MEMTRACE_MODE=fast", "MEMTRACE_DEPTH=1", "MEMTRACE_INTERVAL=0", "MEMTRACE_GPU=2" });
	EXPECT_EQ(mt_config.mode, MT_MODE_FULL);
	EXPECT_EQ(mt_config.depth, 128);
	EXPECT_EQ(mt_config.interval, 1000000000);
	EXPECT_EQ(mt_config.gpu, 1);
}

TEST(Config, ChoicesAndFlagsAreMatchedWhole)
{
	Read({ "MEMTRACE_MODE=sample", "MEMTRACE_EVENTS=all", "MEMTRACE_GPU=off", "MEMTRACE_WARN=1" });
	EXPECT_EQ(mt_config.mode, MT_MODE_SAMPLE);
	EXPECT_EQ(mt_config.events, MT_EVENTS_ALL);
	EXPECT_EQ(mt_config.gpu, 0);
	EXPECT_EQ(mt_config.warn, 1);
	Read({ "MEMTRACE_MODE=sam" });
	EXPECT_EQ(mt_config.mode, MT_MODE_FULL);
}

TEST(Config, IsHandedToAnotherProcessWhole)
{
	char text[512] = { 0 };
	struct mt_config was;

	Read({ "MEMTRACE_OUT=/theirs", "MEMTRACE_MODE=sample", "MEMTRACE_SAMPLE_BYTES=12345", "MEMTRACE_EVENTS=all",
	       "MEMTRACE_PYTHON=objects", "MEMTRACE_DEPTH=1024", "MEMTRACE_GPU=off", "MEMTRACE_INTERVAL=0.020304",
	       "MEMTRACE_COW_INTERVAL=86400", "MEMTRACE_MAX_BYTES=9223372036854775807", "MEMTRACE_WARN=on",
	       "MEMTRACE_LOG=debug", "MEMTRACE_VERIFY=1000000", "MEMTRACE_SEED=9223372036854775807" });
	was = mt_config;
	size_t used = mt_config_write(text, sizeof(text));
	ASSERT_GT(used, 100u);
	EXPECT_EQ(mt_config_write(text, used), 0u) << "it is written whole or not at all";
	mt_config_write(text, sizeof(text));
	Read({ "MEMTRACE_OUT=/own", "MEMTRACE_MODE=dormant" });
	const char *own = mt_config.out;
	mt_config_adopt(text, sizeof(text));
	EXPECT_EQ(mt_config.out, own);
	EXPECT_EQ(mt_config_own.mode, MT_MODE_DORMANT) << "what it was started with is kept";
	was.out = own;
	was.trace = mt_config.trace;
	was.nvtx = mt_config.nvtx;
	EXPECT_EQ(memcmp(&was, &mt_config, sizeof(was)), 0) << text;
}

/* The file that it stands in may have been written by anybody of that user. */
TEST(Config, WhatIsNoSettingIsLeftOut)
{
	Read({});
	struct mt_config was = mt_config;
	const char none[] = "OUT=/theirs\0TRACE=x\0DEPTH=0\0DEPTH\0NO_SUCH=1\0=\0";
	mt_config_adopt(none, sizeof(none));
	EXPECT_EQ(memcmp(&was, &mt_config, sizeof(was)), 0);
	std::vector<char> open(8, 'D');
	mt_config_adopt(open.data(), open.size());
	mt_config_adopt("", 0);
	EXPECT_EQ(memcmp(&was, &mt_config, sizeof(was)), 0);
}
