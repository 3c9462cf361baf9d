/*
 * The memory cgroup, of both versions, in folders that look like a machine's: the shim's sampler and
 * the driver read the same files, and must find the same.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "support/harness.h"

extern "C" {
#include "control/control.h"
#include "samplers/sampler.h"
}

using memtrace_test::TempDir;
using memtrace_test::WriteAll;

namespace
{

const char kV1[] = "9:name=systemd:/\n5:cpu,cpuacct:/a\n4:memory:/job/step\n0::/\n";
const char kV2[] = "0::/job/step\n";

class Cgroup : public testing::Test
{
      protected:
	~Cgroup() override
	{
		mt_sampler_cgroup_at("");
	}

	void Put(const std::string &path, const std::string &text)
	{
		for (size_t at = path.find('/'); at != std::string::npos;
		     at = path.find('/', at + 1))
			mkdir((dir.path + "/" + path.substr(0, at)).c_str(), 0755);
		WriteAll(dir.File(path), text);
	}

	/* What both found; a value that is not there is -1. */
	void Look()
	{
		mt_ev_sample s = {};
		struct cgroup c = {};

		mt_sampler_cgroup_at(dir.path.c_str());
		mt_sampler_cgroup.sample(&s);
		usage = static_cast<long>(s.cgroup_usage) - 1;
		limit = static_cast<long>(s.cgroup_limit) - 1;
		kills = static_cast<long>(s.oom_kills) - 1;
		EXPECT_EQ(cgroup_read(dir.path.c_str(), &c) == 0, usage >= 0);
		if (usage >= 0) {
			EXPECT_EQ(static_cast<long>(c.usage), usage);
			EXPECT_EQ(static_cast<long>(c.limit), limit < 0 ? 0 : limit);
			EXPECT_EQ(static_cast<long>(c.kills), kills < 0 ? 0 : kills);
		}
		limited = static_cast<long>(c.limited_usage);
	}

	TempDir dir;
	long usage, limit, kills, limited;
};

TEST_F(Cgroup, Version1)
{
	Put("proc/self/cgroup", kV1);
	Put("sys/fs/cgroup/memory/job/step/memory.usage_in_bytes", "5000\n");
	Put("sys/fs/cgroup/memory/job/step/memory.limit_in_bytes", "9000\n");
	Put("sys/fs/cgroup/memory/job/step/memory.oom_control",
	    "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
	Put("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n");
	Put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	Look();

	EXPECT_EQ(usage, 5000);
	EXPECT_EQ(limit, 9000);
	EXPECT_EQ(limited, 5000);
	EXPECT_EQ(kills, 3);
}

TEST_F(Cgroup, Version2)
{
	Put("proc/self/cgroup", kV2);
	Put("sys/fs/cgroup/job/step/memory.current", "5000\n");
	Put("sys/fs/cgroup/job/step/memory.max", "max\n");
	Put("sys/fs/cgroup/job/step/memory.events", "low 0\nhigh 7\nmax 5\noom 2\noom_kill 2\n");
	Put("sys/fs/cgroup/job/memory.current", "7000\n");
	Put("sys/fs/cgroup/job/memory.max", "8000\n");
	Look();

	EXPECT_EQ(usage, 5000);
	EXPECT_EQ(limit, 8000) << "of the group around it";
	EXPECT_EQ(limited, 7000) << "and what that one has in use";
	EXPECT_EQ(kills, 2);
}

/* Version 2 is mounted beside version 1, without a memory controller. */
TEST_F(Cgroup, BothWithTheMemoryControllerInVersion1)
{
	Put("proc/self/cgroup", kV1);
	Put("sys/fs/cgroup/unified/cgroup.procs", "1\n");
	Put("sys/fs/cgroup/memory/job/step/memory.usage_in_bytes", "5000\n");
	Look();

	EXPECT_EQ(usage, 5000);
	EXPECT_EQ(limit, -1);
	EXPECT_EQ(kills, -1) << "there is no such file";
}

/* In a container the path counts from outside: what is mounted is its own group. */
TEST_F(Cgroup, InACgroupNamespace)
{
	Put("proc/self/cgroup", "0::/../../kubepods/pod7/abc\n");
	Put("sys/fs/cgroup/memory.current", "600\n");
	Put("sys/fs/cgroup/memory.max", "1000\n");
	Put("sys/fs/cgroup/memory.events", "oom_kill 0\n");
	Look();

	EXPECT_EQ(usage, 600);
	EXPECT_EQ(limit, 1000);
	EXPECT_EQ(kills, 0);
}

TEST_F(Cgroup, NoneIsNotMeasuredAndNotZero)
{
	Put("proc/self/cgroup", "0::/\n");
	Look();
	EXPECT_EQ(usage, -1);
	EXPECT_EQ(limit, -1);
	EXPECT_EQ(kills, -1);
}

} // namespace
