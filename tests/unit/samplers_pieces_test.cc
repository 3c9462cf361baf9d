/*
 * What a look at pages leaves out: nothing that can have changed, but for what it says. And on real
 * pages: what is taken to be a process's own is read the way pagemap tells it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>

extern "C" {
#include "memtrace/format.h"
#include "samplers/pagemap.h"
#include "samplers/pieces.h"
}

namespace
{

const uint64_t kShared = 64000, kFew = 64, kTag = 1;
const uint64_t kAllowed = kShared / MT_PIECE_MISSED;

/* One whole look at faults 1000, of pieces 0 to 63, of which the first ones are its own. */
std::unique_ptr<mt_pieces> Looked(uint64_t own = 0)
{
	auto p = std::make_unique<mt_pieces>();

	mt_pieces_begin(p.get(), kTag, MT_LOOK_WHOLE);
	for (uint64_t i = 0; i < own; i++)
		mt_pieces_own(p.get(), i);
	p->found = kShared;
	mt_pieces_end(p.get(), kTag, 1000);
	return p;
}

/* The pieces of 0 to 63 that a look of this kind leaves out. */
std::set<uint64_t> LeftOut(mt_pieces *p, mt_look look, uint64_t faults)
{
	std::set<uint64_t> out;

	mt_pieces_begin(p, kTag, look);
	for (uint64_t i = 0; i < 64; i++) {
		mt_piece_way way = mt_pieces_way(p, i, 1);

		if (way == MT_PIECE_UNSEEN || way == MT_PIECE_UNSEEN_OWN)
			out.insert(i);
		if (way == MT_PIECE_OWN || way == MT_PIECE_UNSEEN_OWN)
			mt_pieces_own(p, i);
	}
	mt_pieces_end(p, kTag, faults);
	return out;
}

TEST(Pieces, AWholeLookIsMadeUnlessFewPagesCanHaveBeenCopied)
{
	auto none = std::make_unique<mt_pieces>(), p = Looked();

	EXPECT_EQ(mt_pieces_choose(none.get(), kTag, 1000, kFew), MT_LOOK_WHOLE);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 1000 + kFew - 1, kFew), MT_LOOK_NONE);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 1000 + kFew, kFew), MT_LOOK_PART);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 1000 + kAllowed, kFew), MT_LOOK_PART);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 1001 + kAllowed, kFew), MT_LOOK_WHOLE);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag + 1, 1000, kFew), MT_LOOK_WHOLE) << "it forked";
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 999, kFew), MT_LOOK_WHOLE) << "another process";
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 0, kFew), MT_LOOK_WHOLE) << "not known";
	EXPECT_EQ(mt_pieces_choose(p.get(), 0, 1000, kFew), MT_LOOK_WHOLE) << "not known";
}

TEST(Pieces, EveryPieceHasItsTurnAndUntilThenItsFaultsCount)
{
	auto p = Looked();
	std::set<uint64_t> seen;

	for (uint32_t turn = 0; turn < MT_PIECE_TURNS; turn++) {
		EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 1100, kFew), MT_LOOK_PART) << turn;
		std::set<uint64_t> out = LeftOut(p.get(), MT_LOOK_PART, 1100);
		EXPECT_EQ(out.size(), 56u);
		for (uint64_t i = 0; i < 64; i++)
			if (!out.count(i)) {
				EXPECT_TRUE(seen.insert(i).second) << i << " twice";
			}
	}
	EXPECT_EQ(seen.size(), 64u);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 1100, kFew), MT_LOOK_NONE);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 1101 + kAllowed, kFew), MT_LOOK_WHOLE);
}

TEST(Pieces, ManyFaultsInSmallStepsEndInAWholeLook)
{
	auto p = Looked();
	uint64_t faults = 1000, parts = 0;

	while (mt_pieces_choose(p.get(), kTag, faults += kAllowed / 4, kFew) == MT_LOOK_PART) {
		LeftOut(p.get(), MT_LOOK_PART, faults);
		parts++;
	}
	EXPECT_EQ(parts, 4u);
}

TEST(Pieces, WhereNearlyAllWasCopiedFaultsMeanLittle)
{
	auto p = Looked();

	mt_pieces_begin(p.get(), kTag, MT_LOOK_WHOLE);
	p->found = kAllowed + 1;
	mt_pieces_end(p.get(), kTag, 100000);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 900000, kFew), MT_LOOK_WHOLE);
	mt_pieces_begin(p.get(), kTag, MT_LOOK_WHOLE);
	p->found = kAllowed;
	mt_pieces_end(p.get(), kTag, 100000);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 900000, kFew), MT_LOOK_PART);
	/* It forks: then all of that counts anew. */
	mt_pieces_begin(p.get(), kTag + 1, MT_LOOK_WHOLE);
	p->found = kAllowed;
	mt_pieces_end(p.get(), kTag + 1, 100000);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag + 1, 900000, kFew), MT_LOOK_WHOLE);
}

TEST(Pieces, WhatIsItsOwnStaysSoUntilItForks)
{
	auto p = Looked(10);

	LeftOut(p.get(), MT_LOOK_PART, 1100);
	LeftOut(p.get(), MT_LOOK_PART, 1200);
	mt_pieces_begin(p.get(), kTag, MT_LOOK_WHOLE);
	EXPECT_EQ(mt_pieces_way(p.get(), 3, 0), MT_PIECE_READ) << "a part of it is mapped";
	for (uint64_t i = 4; i < 64; i++)
		EXPECT_EQ(mt_pieces_way(p.get(), i, 1), i < 10 ? MT_PIECE_OWN : MT_PIECE_READ);
	mt_pieces_begin(p.get(), kTag + 1, MT_LOOK_WHOLE);
	for (uint64_t i = 0; i < 64; i++)
		EXPECT_EQ(mt_pieces_way(p.get(), i, 1), MT_PIECE_READ);
}

TEST(Pieces, ALookThatWasCutShortChangesNothing)
{
	auto p = Looked(10);

	mt_pieces_begin(p.get(), kTag, MT_LOOK_WHOLE);
	for (uint64_t i = 0; i < 30; i++)
		mt_pieces_own(p.get(), i);
	mt_pieces_begin(p.get(), kTag, MT_LOOK_WHOLE);
	for (uint64_t i = 0; i < 64; i++)
		EXPECT_EQ(mt_pieces_way(p.get(), i, 1), i < 10 ? MT_PIECE_OWN : MT_PIECE_READ);
	EXPECT_EQ(mt_pieces_choose(p.get(), kTag, 1001 + kAllowed, kFew), MT_LOOK_WHOLE);
}

TEST(Pieces, WhatDoesNotFitIsReadAgain)
{
	auto p = Looked();

	mt_pieces_begin(p.get(), kTag, MT_LOOK_WHOLE);
	for (uint64_t i = 0; i < MT_PIECE_RUNS + 10; i++)
		mt_pieces_own(p.get(), i * 2);
	mt_pieces_end(p.get(), kTag, 1000);
	mt_pieces_begin(p.get(), kTag, MT_LOOK_WHOLE);
	for (uint64_t i = 0; i < MT_PIECE_RUNS + 10; i++)
		EXPECT_EQ(mt_pieces_way(p.get(), i * 2, 1),
			  i < MT_PIECE_RUNS ? MT_PIECE_OWN : MT_PIECE_READ);
}

/* ---- real pages ----------------------------------------------------------------------------------- */

/* Four pieces of 2 MiB and half a one, all pages touched. */
struct Region {
	Region()
	{
		raw = static_cast<char *>(mmap(nullptr, bytes + MT_PIECE_BYTES,
					       PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
					       -1, 0));
		at = reinterpret_cast<char *>(
			(reinterpret_cast<uintptr_t>(raw) + MT_PIECE_BYTES - 1) &
			~(uintptr_t)(MT_PIECE_BYTES - 1));
		madvise(at, bytes, MADV_NOHUGEPAGE);
		Write(0, bytes / 4096);
	}
	~Region()
	{
		munmap(raw, bytes + MT_PIECE_BYTES);
	}
	void Write(size_t from, size_t to)
	{
		for (size_t i = from; i < to; i++)
			at[i * 4096]++;
	}
	const size_t bytes = MT_PIECE_BYTES / 2 * 9;
	char *raw, *at;
};

using reader = int (*)(mt_pagemap *, uint64_t, uint32_t);

struct Found {
	std::string runs;
	uint32_t mixed;
	uint64_t shared;
};

Found Read(const Region &r, reader read)
{
	auto m = std::make_unique<mt_pagemap>();

	m->fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	mt_pagemap_begin(m.get());
	EXPECT_EQ(read(m.get(), reinterpret_cast<uintptr_t>(r.at), (uint32_t)(r.bytes / 4096)), 0);
	mt_pagemap_end(m.get());
	close(m->fd);
	return { std::string(reinterpret_cast<char *>(m->runs), m->used), m->mixed, m->shared };
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

void ExpectSame(const Region &r)
{
	Found own = Read(r, mt_pagemap_read_own), all = Read(r, mt_pagemap_read);

	EXPECT_EQ(own.runs, all.runs);
	EXPECT_EQ(own.mixed, all.mixed);
	EXPECT_EQ(own.shared, all.shared);
}

TEST(PagemapPieces, APageThatIsSharedIsFoundInItsPiece)
{
	Region r;

	EXPECT_EQ(Read(r, mt_pagemap_read).mixed, 0u);
	InChild([&] {
		EXPECT_EQ(Read(r, mt_pagemap_read).mixed, 31u);
		EXPECT_EQ(Read(r, mt_pagemap_read).shared, r.bytes / 4096);
		r.Write(0, 512);
		r.Write(513, 1024); /* all but one */
		r.Write(2048, 2304);
		EXPECT_EQ(Read(r, mt_pagemap_read).mixed, 14u) << "the second to the fourth";
		EXPECT_EQ(Read(r, mt_pagemap_read).shared, 1u + 1024);
	});
}

TEST(PagemapPieces, WhatIsItsOwnIsTakenAsPagemapTellsIt)
{
	Region r;

	ExpectSame(r);
	InChild([&] {
		r.Write(0, r.bytes / 4096);
		ExpectSame(r);
		EXPECT_EQ(Read(r, mt_pagemap_read_own).mixed, 0u);
		madvise(r.at + 300 * 4096, 900 * 4096, MADV_DONTNEED);
		r.Write(500, 510);
		ExpectSame(r);
		/* It forks without our knowledge: its pages are shared again. */
		InChild([&] {
			ExpectSame(r);
			EXPECT_EQ(Read(r, mt_pagemap_read_own).mixed, 29u) << "the second is empty";
		});
	});
}

TEST(PagemapPieces, AHugePageIsNotTakenToBeItsOwn)
{
	Region r;
	Found all;

	madvise(r.at, 2 * MT_PIECE_BYTES, MADV_HUGEPAGE);
	madvise(r.at, 2 * MT_PIECE_BYTES, MADV_DONTNEED);
	r.Write(0, 1024);
	all = Read(r, mt_pagemap_read);
	if (!all.mixed)
		GTEST_SKIP() << "no huge pages here";
	EXPECT_EQ(all.mixed & ~3u, 0u);
	ExpectSame(r);
}

} // namespace
