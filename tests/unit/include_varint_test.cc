/*
 * Variable-length integers: known bytes, both ends of every length, and cut or overlong numbers.
 * Buffers are exactly as long as what may be read, so that AddressSanitizer sees one byte more.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "memtrace/varint.h"

namespace
{

std::vector<uint8_t> Put(uint64_t v)
{
	uint8_t buf[MT_VARINT_MAX];

	return { buf, mt_put_varint(buf, v) };
}

/* Bytes read; 0: refused. */
size_t Get(const std::vector<uint8_t> &bytes, uint64_t *v)
{
	std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
	const uint8_t *end;

	if (!bytes.empty())
		memcpy(exact.get(), bytes.data(), bytes.size());
	end = mt_get_varint(exact.get(), exact.get() + bytes.size(), v);
	return end ? static_cast<size_t>(end - exact.get()) : 0;
}

/* The ends of every length: 2^7k - 1, 2^7k, 2^7k + 1, and the last number. */
std::vector<uint64_t> Edges()
{
	std::vector<uint64_t> out = { 0, 1, 2, UINT64_MAX - 1, UINT64_MAX };

	for (int bits = 1; bits < 64; bits++)
		for (int d = -1; d <= 1; d++)
			out.push_back((UINT64_C(1) << bits) + static_cast<uint64_t>(d));
	return out;
}

using Bytes = std::vector<uint8_t>;

TEST(Varint, BytesAreThoseOfLeb128)
{
	EXPECT_EQ(Put(0), (Bytes{ 0 }));
	EXPECT_EQ(Put(127), (Bytes{ 0x7f }));
	EXPECT_EQ(Put(128), (Bytes{ 0x80, 0x01 }));
	EXPECT_EQ(Put(300), (Bytes{ 0xac, 0x02 }));
	EXPECT_EQ(Put(624485), (Bytes{ 0xe5, 0x8e, 0x26 })); /* the example of DWARF 5, 7.6 */
	EXPECT_EQ(Put(UINT64_MAX),
		  (Bytes{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01 }));
}

TEST(Varint, EveryLengthComesBackAndIsAsShortAsCanBe)
{
	for (uint64_t v : Edges()) {
		Bytes bytes = Put(v);
		uint64_t got = ~v;
		size_t want = 1;

		while (want < MT_VARINT_MAX && v >> (7 * want))
			want++;
		EXPECT_EQ(bytes.size(), want) << v;
		ASSERT_EQ(Get(bytes, &got), bytes.size()) << v;
		EXPECT_EQ(got, v);
		bytes.push_back(0x55); /* not its byte */
		EXPECT_EQ(Get(bytes, &got), bytes.size() - 1) << v;
	}
}

TEST(Varint, CutAtAnyByteIsRefused)
{
	for (uint64_t v : Edges()) {
		Bytes bytes = Put(v);
		uint64_t got;

		while (!bytes.empty()) {
			bytes.pop_back();
			EXPECT_EQ(Get(bytes, &got), 0u) << v << " at " << bytes.size();
		}
	}
}

TEST(Varint, MoreThanSixtyFourBitsAreRefused)
{
	uint64_t got;

	EXPECT_EQ(Get(Bytes{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02 }, &got), 0u);
	EXPECT_EQ(Get(Bytes{ 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00 }, &got),
		  0u);
	EXPECT_EQ(Get(Bytes(1000, 0xff), &got), 0u);
}

TEST(Varint, PaddedNumbersAreReadAsTheyAre)
{
	uint64_t got = 1;

	EXPECT_EQ(Get(Bytes{ 0x86, 0x80, 0x00 }, &got), 3u);
	EXPECT_EQ(got, 6u);
	EXPECT_EQ(Get(Bytes{ 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00 }, &got),
		  10u);
	EXPECT_EQ(got, 0u);
}

TEST(Varint, LengthsHaveOneWidth)
{
	for (uint32_t v : { 0u, 1u, 127u, 128u, 300u, 16384u, (1u << 21) - 1 }) {
		Bytes bytes(MT_LENGTH_BYTES);
		uint64_t got = ~UINT64_C(0);

		mt_put_length(bytes.data(), v);
		EXPECT_EQ(Get(bytes, &got), bytes.size());
		EXPECT_EQ(got, v);
	}
}

TEST(Zigzag, SmallNumbersOfBothSignsAreSmall)
{
	EXPECT_EQ(mt_zigzag(0), 0u);
	EXPECT_EQ(mt_zigzag(-1), 1u);
	EXPECT_EQ(mt_zigzag(1), 2u);
	EXPECT_EQ(mt_zigzag(-2), 3u);
	EXPECT_EQ(mt_zigzag(INT64_MAX), UINT64_MAX - 1);
	EXPECT_EQ(mt_zigzag(INT64_MIN), UINT64_MAX);
}

TEST(Zigzag, ComesBack)
{
	for (uint64_t v : Edges()) {
		EXPECT_EQ(mt_zigzag(mt_unzigzag(v)), v);
		EXPECT_EQ(mt_unzigzag(mt_zigzag(static_cast<int64_t>(v))), static_cast<int64_t>(v));
	}
}

} // namespace
