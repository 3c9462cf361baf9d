/*
 * Pages of a process as pagemap tells them, against reading only some of them: what is there is
 * told exactly, what is the process's own by those that were read.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <vector>

extern "C" {
#include "memtrace/format.h"
#include "model/pages.h"
#include "samplers/pagemap.h"
}

namespace
{

const uint32_t kShared = MT_PAGE_PRESENT, kOwn = MT_PAGE_PRESENT | MT_PAGE_EXCLUSIVE;
const size_t kPage = 4096, kGroupBytes = MT_GROUP_PAGES * kPage;

/* Eight groups and half a one, all pages touched, but no page of another kind is among them. */
struct Region {
	Region()
	{
		raw = static_cast<char *>(mmap(nullptr, bytes + kGroupBytes, PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		at = reinterpret_cast<char *>(
			(reinterpret_cast<uintptr_t>(raw) + kGroupBytes - 1) &
			~(uintptr_t)(kGroupBytes - 1));
		madvise(at, bytes, MADV_NOHUGEPAGE);
		Write(0, pages);
	}
	~Region()
	{
		munmap(raw, bytes + kGroupBytes);
	}
	void Write(size_t from, size_t to, size_t step = 1)
	{
		for (size_t i = from; i < to; i += step)
			at[i * kPage]++;
	}
	void Drop(size_t from, size_t to)
	{
		madvise(at + from * kPage, (to - from) * kPage, MADV_DONTNEED);
	}
	const size_t pages = MT_GROUP_PAGES * 17 / 2;
	const size_t bytes = pages * kPage;
	char *raw, *at;
};

using reader = int (*)(mt_pagemap *, uint64_t, uint32_t);

struct How {
	reader read;
	uint32_t part = MT_GROUP_PAGES;
	int by_core = 1;
	int exact = 0;
	int no_scan = 0;
};

struct States {
	std::vector<uint32_t> of; /* each page */
	size_t coded; /* bytes */

	size_t Count(uint32_t state, size_t from = 0, size_t to = SIZE_MAX) const
	{
		size_t n = 0;

		for (size_t i = from; i < to && i < of.size(); i++)
			n += of[i] == state;
		return n;
	}
};

/* What a reader of traces makes of it. */
States Read(const Region &r, const How &how)
{
	auto m = std::make_unique<mt_pagemap>();
	uint64_t first = reinterpret_cast<uintptr_t>(r.at) / kPage;
	States found{ std::vector<uint32_t>(r.pages), 0 };
	auto add = [](void *arg, uint64_t page, uint64_t count, uint32_t state) {
		auto *pair = static_cast<std::pair<States *, uint64_t> *>(arg);

		for (uint64_t i = 0; i < count; i++)
			pair->first->of.at(page - pair->second + i) = state;
	};
	std::pair<States *, uint64_t> to = { &found, first };

	m->fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	m->part = how.part;
	m->anonymous = 1;
	m->by_core = how.by_core;
	m->exact = how.exact;
	m->no_scan = how.no_scan;
	mt_pagemap_begin(m.get());
	EXPECT_EQ(how.read(m.get(), first * kPage, (uint32_t)r.pages), 0);
	mt_pagemap_end(m.get());
	close(m->fd);
	found.coded = m->used;
	EXPECT_TRUE(page_runs_each({ reinterpret_cast<char *>(m->runs), m->used }, first, r.pages,
				   add, &to));
	return found;
}

/* Runs fn in a forked process in which its EXPECTs count. */
template <class F> void InChild(F fn)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0) {
		fn();
		_exit(testing::Test::HasFailure());
	}
	waitpid(child, &status, 0);
	EXPECT_EQ(status, 0) << "see above";
}

TEST(Pagemap, OfASmallProcessAllPagesAreReadOfALargeOneAPart)
{
	EXPECT_EQ(mt_pagemap_part(0), MT_GROUP_PAGES);
	EXPECT_EQ(mt_pagemap_part(MT_SAMPLE_BYTES), MT_GROUP_PAGES);
	EXPECT_EQ(mt_pagemap_part(MT_SAMPLE_BYTES + kGroupBytes), MT_GROUP_PAGES / 2);
	EXPECT_EQ(mt_pagemap_part(MT_SAMPLE_BYTES * 8), MT_GROUP_PAGES / 8);
	EXPECT_EQ(mt_pagemap_part(UINT64_C(1) << 30), MT_SAMPLE_LEAST);
	EXPECT_EQ(mt_pagemap_part(UINT64_C(1) << 42), MT_SAMPLE_LEAST);
}

TEST(Pagemap, WhereGroupsAreAlikeAPartTellsTheSameAsAll)
{
	Region r;

	InChild([&] {
		r.Write(0, 1024);
		r.Drop(1024, 2048);
		r.Write(3072, 4352);
		for (uint32_t part : { 16u, 64u, 256u }) {
			EXPECT_EQ(Read(r, { mt_pagemap_sample, part }).of,
				  Read(r, { mt_pagemap_read }).of);
			EXPECT_EQ(Read(r, { mt_pagemap_sample, part, 0 }).of,
				  Read(r, { mt_pagemap_read }).of);
		}
	});
}

TEST(Pagemap, OfMixedGroupsThePartsAreAsInWhatWasRead)
{
	Region r;

	InChild([&] {
		r.Write(0, 4096, 4);
		States all = Read(r, { mt_pagemap_read });
		ASSERT_EQ(all.Count(kOwn), 1024u);
		for (uint32_t part : { 16u, 32u, 128u }) {
			States some = Read(r, { mt_pagemap_sample, part });

			EXPECT_EQ(some.of, all.of) << "period 4 divides the part";
			EXPECT_LT(some.coded, all.coded * part / 512 + 600) << part;
		}
	});
	/* The first half of each group: some groups' samples lie there, some not. */
	InChild([&] {
		for (size_t group = 0; group < 4096; group += 512)
			r.Write(group, group + 256);
		for (uint32_t part : { 16u, 128u, 256u }) {
			size_t own = Read(r, { mt_pagemap_sample, part }).Count(kOwn);

			EXPECT_GE(own, 512u) << part;
			EXPECT_LE(own, 4096u - 512) << part;
		}
	});
}

/* Parents and children of other sizes read the same pages. */
TEST(Pagemap, ASmallerPartLiesWithinALargerOne)
{
	Region r;
	auto *where = static_cast<size_t *>(mmap(nullptr, kPage, PROT_READ | PROT_WRITE,
						 MAP_SHARED | MAP_ANONYMOUS, -1, 0));

	*where = 512;
	InChild([&] {
		for (size_t i = 0; i < 512; i++) {
			r.Write(i, i + 1);
			if (!Read(r, { mt_pagemap_sample, 16 }).Count(kOwn, 0, 512))
				continue;
			*where = i;
			break;
		}
	});
	ASSERT_LT(*where, 512u);
	EXPECT_EQ(*where % 16, 0u);
	InChild([&] {
		r.Write(*where, *where + 16);
		for (uint32_t part : { 16u, 32u, 64u, 128u, 256u })
			EXPECT_EQ(Read(r, { mt_pagemap_sample, part }).Count(kOwn, 0, 512),
				  16 * 512u / part);
	});
	munmap(where, kPage);
}

TEST(Pagemap, WhatIsThereIsExactAlsoWhereAPartIsRead)
{
	Region r;

	InChild([&] {
		r.Drop(100, 130);
		r.Drop(600, 1023);
		r.Drop(1024, 1530);
		r.Drop(2049, 2560);
		r.Drop(4096, 4097);
		States all = Read(r, { mt_pagemap_read });
		States some = Read(r, { mt_pagemap_sample, 16, 1, 1 });

		EXPECT_EQ(some.of, all.of);
		EXPECT_EQ(Read(r, { mt_pagemap_sample, 16, 0, 1 }).of, all.of) << "all are read";
	});
}

TEST(Pagemap, HugePagesAreRead)
{
	Region r;
	States all;

	madvise(r.at, 2 * kGroupBytes, MADV_HUGEPAGE);
	r.Drop(0, 1024);
	r.Write(0, 1024);
	all = Read(r, { mt_pagemap_read });
	if (!all.Count(kOwn | MT_PAGE_HUGE))
		GTEST_SKIP() << "no huge pages here";
	EXPECT_EQ(Read(r, { mt_pagemap_sample, 16 }).of, all.of);
}

TEST(Pagemap, AForkedChildsPagesAreShared)
{
	Region r;

	InChild([&] {
		for (int by_core : { 1, 0 })
			for (int no_scan : { 0, 1 }) {
				How how = { mt_pagemap_read_forked, 512, by_core, 0, no_scan };

				EXPECT_EQ(Read(r, how).Count(kShared), r.pages) << by_core << no_scan;
			}
		/* Copied by the fork, or by its first steps: whole groups, as far as it is seen. */
		r.Write(512, 1024);
		r.Drop(2000, 3000);
		States all = Read(r, { mt_pagemap_read });

		for (int by_core : { 1, 0 })
			EXPECT_EQ(Read(r, { mt_pagemap_read_forked, 512, by_core }).of, all.of);
	});
}

TEST(Pagemap, ZerosThatWereOnlyReadAreNotThere)
{
	Region r;
	volatile char sum = 0;

	r.Drop(1024, 2048);
	for (size_t i = 1024; i < 2048; i++)
		sum = (char)(sum + r.at[i * kPage]);
	for (uint32_t part : { 16u, 128u, 512u }) {
		States s = Read(r, { mt_pagemap_sample, part });

		if (s.Count(kShared, 1024, 2048) == 1024)
			GTEST_SKIP() << "the kernel does not tell pages of zeros";
		EXPECT_EQ(s.Count(0), 1024u) << part;
		EXPECT_EQ(s.Count(kOwn), r.pages - 1024) << part;
	}
	InChild([&] {
		for (int by_core : { 1, 0 }) {
			States s = Read(r, { mt_pagemap_read_forked, 512, by_core });

			EXPECT_EQ(s.Count(0), 1024u);
			EXPECT_EQ(s.Count(kShared), r.pages - 1024);
		}
	});
}

} // namespace
