/*
 * preload/stack/cfi.c: rule words from call-frame information that is put together here byte by
 * byte, and no harm from any damage to it. That the rules are right for real code is shown by
 * stack_native_test.cc, against another unwinder.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

extern "C" {
#include "stack/cfi.h"
#include "stack/rules.h"
}

namespace
{

using Bytes = std::vector<uint8_t>;

constexpr uint32_t kCodeOffset = 0x1000; /* the function, as seen from the section's start */
constexpr uint32_t kCodeBytes = 0x100;

void put32(Bytes &b, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		b.push_back(uint8_t(v >> 8 * i));
}

/*
 * A header with a table of one entry, a CIE and an FDE, in memory that ends where the bytes end:
 * the page behind them can't be read.
 */
class Section
{
      public:
	Section(const std::string &augmentation, const Bytes &cie_program, const Bytes &fde_program,
		uint8_t return_register = 16)
	{
		Bytes b = { 1, 0x1b, 0x03, 0x3b };
		size_t fde, cie = 20, length;

		put32(b, 16); /* .eh_frame follows the header: from byte 4 to byte 20 */
		put32(b, 1);
		put32(b, kCodeOffset);
		put32(b, 0); /* the FDE, filled in below */
		put32(b, 0);
		put32(b, 0);
		b.push_back(1);
		for (char c : augmentation)
			b.push_back(uint8_t(c));
		b.push_back(0);
		b.insert(b.end(), { 1, 0x78, return_register }); /* code 1, data -8 */
		if (!augmentation.empty() && augmentation[0] == 'z')
			b.insert(b.end(), { 1, 0x1b });
		b.insert(b.end(), cie_program.begin(), cie_program.end());
		while ((b.size() - cie) % 4)
			b.push_back(0);
		set32(b, cie, uint32_t(b.size() - cie - 4));
		fde = b.size();
		set32(b, 16, uint32_t(fde));
		put32(b, 0);
		put32(b, uint32_t(b.size() - cie));
		put32(b, kCodeOffset - uint32_t(b.size()));
		put32(b, kCodeBytes);
		b.push_back(0);
		b.insert(b.end(), fde_program.begin(), fde_program.end());
		while ((b.size() - fde) % 4)
			b.push_back(0);
		length = b.size() - fde - 4;
		set32(b, fde, uint32_t(length));
		bytes_ = b;
		map_ = static_cast<uint8_t *>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE,
						   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		mprotect(map_ + 4096, 4096, PROT_NONE);
		place(b.size());
	}
	~Section()
	{
		munmap(map_, 8192);
	}

	/* Only the first n bytes exist. */
	void place(size_t n)
	{
		at_ = map_ + 4096 - n;
		memcpy(at_, bytes_.data(), n);
		cfi_ = { at_, at_ + std::min<size_t>(n, 20), at_, at_ + n };
	}
	uint64_t rule(uint32_t offset, bool interrupted = false) const
	{
		return mt_cfi_rule(&cfi_, uintptr_t(at_) + kCodeOffset + offset, interrupted);
	}
	size_t size() const
	{
		return bytes_.size();
	}
	uint8_t *at() const
	{
		return at_;
	}
	void restore() const
	{
		memcpy(at_, bytes_.data(), bytes_.size());
	}
	const mt_cfi &cfi() const
	{
		return cfi_;
	}

      private:
	static void set32(Bytes &b, size_t at, uint32_t v)
	{
		for (int i = 0; i < 4; i++)
			b[at + size_t(i)] = uint8_t(v >> 8 * i);
	}

	Bytes bytes_;
	uint8_t *map_, *at_;
	mt_cfi cfi_;
};

uint64_t std_rule(int32_t cfa, uint64_t flags = 0, int16_t save = 0)
{
	return MT_RULE_STD | flags | uint64_t(uint16_t(save / 8)) << 8 |
	       uint64_t(uint32_t(cfa)) << 32;
}

const Bytes kAtEntry = { 0x0c, 7, 8, 0x90, 1 }; /* CFA = RSP + 8, return address at CFA - 8 */

TEST(CfiRules, PrologueRowsOfAFunctionWithAFramePointer)
{
	/* push rbp (1 byte); mov rbp, rsp (3 bytes) ... leave; ret */
	Section s("zR", kAtEntry,
		  { 0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x02, 0x20, 0x0c, 7, 8 });

	EXPECT_EQ(s.rule(0, true), std_rule(8));
	EXPECT_EQ(s.rule(1, true), std_rule(16, MT_RULE_SAVED, -16));
	EXPECT_EQ(s.rule(4, true), std_rule(16, MT_RULE_SAVED | MT_RULE_CFA_RBP, -16));
	EXPECT_EQ(s.rule(0x24, true), std_rule(8, MT_RULE_SAVED, -16));
	EXPECT_EQ(s.rule(kCodeBytes, true), uint64_t(MT_RULE_NOINFO));
}

TEST(CfiRules, ReturnAddressBelongsToTheCallBeforeIt)
{
	Section s("zR", kAtEntry, { 0x44, 0x0e, 32 });

	EXPECT_EQ(s.rule(4), std_rule(8)); /* the row of byte 3 */
	EXPECT_EQ(s.rule(4, true), std_rule(32));
	EXPECT_EQ(s.rule(0), uint64_t(MT_RULE_NOINFO)); /* that call is in the function before */
	EXPECT_EQ(s.rule(kCodeBytes), std_rule(32));
}

TEST(CfiRules, RememberedRowsComeBack)
{
	Section s("zR", kAtEntry,
		  { 0x0a, 0x44, 0x0e, 48, 0x0a, 0x44, 0x0e, 64, 0x44, 0x0b, 0x44, 0x0b });

	EXPECT_EQ(s.rule(4, true), std_rule(48));
	EXPECT_EQ(s.rule(8, true), std_rule(64));
	EXPECT_EQ(s.rule(12, true), std_rule(48));
	EXPECT_EQ(s.rule(16, true), std_rule(8));
}

TEST(CfiRules, RealignedStackIsReadThroughAPointer)
{
	/* CFA = *(RBP - 8), RBP saved at RBP + 0: what gcc writes for such functions. */
	Section s("zR", kAtEntry, { 0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0 });
	uint64_t rule = s.rule(8);

	EXPECT_EQ(mt_rule_kind(rule), unsigned(MT_RULE_DEREF));
	EXPECT_TRUE(rule & MT_RULE_CFA_RBP);
	EXPECT_EQ(mt_rule_cfa_offset(rule), -8);
	EXPECT_EQ(mt_rule_add(rule), 0);
	EXPECT_TRUE(rule & MT_RULE_SAVED);
	EXPECT_TRUE(rule & MT_RULE_SAVE_RBP);
	EXPECT_EQ(mt_rule_save_offset(rule), 0);
}

TEST(CfiRules, SavedStackPointerPlusEight)
{
	/* CFA = *(RSP + 64) + 8: hand-written vector code. */
	Section s("zR", kAtEntry, { 0x0f, 5, 0x77, 0xc0, 0x00, 0x06, 0x23, 0x08 });
	uint64_t rule = s.rule(8);

	/* The block is one byte short of the addition: its last byte is read as the next opcode. */
	EXPECT_EQ(rule, uint64_t(MT_RULE_NOINFO));
	Section whole("zR", kAtEntry, { 0x0f, 6, 0x77, 0xc0, 0x00, 0x06, 0x23, 0x08 });
	rule = whole.rule(8);
	EXPECT_EQ(mt_rule_kind(rule), unsigned(MT_RULE_DEREF));
	EXPECT_FALSE(rule & MT_RULE_CFA_RBP);
	EXPECT_EQ(mt_rule_cfa_offset(rule), 64);
	EXPECT_EQ(mt_rule_add(rule), 8);
}

TEST(CfiRules, PltExpressionIsFoldedByAddress)
{
	/* RSP + 8 + ((RIP & 15) >= 11 ? 8 : 0) */
	Section s("zR", kAtEntry,
		  { 0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22 });
	uint32_t to_sixteen = uint32_t(-(uintptr_t(s.at()) + kCodeOffset) & 15);

	EXPECT_EQ(s.rule(to_sixteen + 10, true), std_rule(8));
	EXPECT_EQ(s.rule(to_sixteen + 11, true), std_rule(16));
}

TEST(CfiRules, OutermostAndSignalFrames)
{
	EXPECT_EQ(Section("zR", kAtEntry, { 0x07, 16 }).rule(8), uint64_t(MT_RULE_END));
	EXPECT_EQ(Section("zRS", kAtEntry, {}).rule(8), uint64_t(MT_RULE_SIGNAL));
}

TEST(CfiRules, WhatAWordCannotSayIsNoInformation)
{
	const uint64_t none = MT_RULE_NOINFO;

	EXPECT_EQ(Section("zR", kAtEntry, { 0x0d, 10 }).rule(8), none) << "CFA from r10";
	EXPECT_EQ(Section("zR", kAtEntry, { 0x90, 2 }).rule(8), none) << "return address elsewhere";
	EXPECT_EQ(Section("zR", kAtEntry, { 0x09, 6, 3 }).rule(8), none) << "RBP in RBX";
	EXPECT_EQ(Section("zR", kAtEntry, { 0x3f }).rule(8), none) << "unknown opcode";
	EXPECT_EQ(Section("zQ", kAtEntry, {}).rule(8), none) << "unknown augmentation";
	EXPECT_EQ(Section("eh", kAtEntry, {}).rule(8), none) << "augmentation without a size";
	EXPECT_EQ(Section("zR", kAtEntry, {}, 30).rule(8), none) << "another machine";
	EXPECT_EQ(Section("zR", kAtEntry, { 0x0b }).rule(8), none) << "restore without remember";
	EXPECT_EQ(Section("zR", kAtEntry, { 0x0f, 2, 0x76, 0 }).rule(8),
		  std_rule(0, MT_RULE_CFA_RBP))
		<< "the control: this one can be said";
}

/* Bytes that are missing or wrong may cost a rule, never a read outside (which would end the test).
 */
TEST(CfiRules, CutSectionsAreNotReadBeyondTheirEnd)
{
	Section s("zR", kAtEntry,
		  { 0x41, 0x0e, 16, 0x86, 2, 0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0 });

	EXPECT_NE(s.rule(8), uint64_t(MT_RULE_NOINFO));
	for (size_t n = 0; n < s.size(); n++) {
		s.place(n);
		EXPECT_EQ(s.rule(8), uint64_t(MT_RULE_NOINFO)) << n << " bytes";
	}
}

TEST(CfiRules, DamagedSectionsAreHarmless)
{
	Section s("zRS", kAtEntry, { 0x41, 0x0e, 16, 0x86, 2, 0x0a, 0x0f, 3,	0x76, 0x78, 0x06,
				     0x10, 6,	 2,  0x76, 0, 0x44, 0x0b, 0x16, 6,    1,    0x31 });
	std::mt19937 random(7);
	size_t changed = 0;

	for (int i = 0; i < 300000; i++) {
		s.restore();
		for (unsigned n = 1 + random() % 4; n; n--)
			s.at()[random() % s.size()] = uint8_t(random());
		changed += s.rule(random() % kCodeBytes, i & 1) != MT_RULE_SIGNAL;
	}
	EXPECT_GT(changed, 1000u);
}

} // namespace
