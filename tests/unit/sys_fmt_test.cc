// Text without stdio: what is formatted and parsed, at the edges of buffers and of numbers.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>

extern "C" {
#include "sys/fmt.h"
#include "sys/sys.h"
}

TEST(Fmt, FormatsEveryConversion)
{
	char buf[128];
	const char *volatile null = nullptr;
	size_t n = mt_fmt(buf, sizeof(buf), "%s|%d|%u|%lu|%lx|%%|%s", "text", -7, 42u,
			  18446744073709551615ul, 0xdeadbeeful, null);

	EXPECT_STREQ(buf, "text|-7|42|18446744073709551615|deadbeef|%|?");
	EXPECT_EQ(n, std::string(buf).size());
}

TEST(Fmt, CutsAtTheEndOfTheBufferAndTerminates)
{
	char buf[6] = { 'x', 'x', 'x', 'x', 'x', 'x' };

	EXPECT_EQ(mt_fmt(buf, sizeof(buf), "%s", "abcdefgh"), 5u);
	EXPECT_STREQ(buf, "abcde");
	EXPECT_EQ(mt_fmt(buf, 1, "%d", 5), 0u);
	EXPECT_STREQ(buf, "");
}

TEST(Fmt, FormatsTheSmallestInt)
{
	char buf[32];

	mt_fmt(buf, sizeof(buf), "%d", INT32_MIN);
	EXPECT_STREQ(buf, "-2147483648");
}

TEST(Fmt, ParsedNumberStopsAtTheFirstOtherCharacter)
{
	const char *p = "123abc";

	EXPECT_EQ(mt_parse_number(&p, 10), 123u);
	EXPECT_STREQ(p, "abc");
	EXPECT_EQ(mt_parse_number(&p, 16), 0xabcu);
	EXPECT_STREQ(p, "");
}

TEST(Fmt, ParsedNumberSaturates)
{
	const char *p = "99999999999999999999999 ";

	EXPECT_EQ(mt_parse_number(&p, 10), UINT64_MAX);
	EXPECT_STREQ(p, " ");
}

TEST(Fmt, FieldIsFoundOnlyAtTheStartOfALine)
{
	const char *text = "Name:\tVmRSS: 5\nVmRSS:\t     1234 kB\nVmSwap:\t0 kB\n";

	EXPECT_EQ(mt_find_field(text, "VmRSS"), 1234);
	EXPECT_EQ(mt_find_field(text, "VmSwap"), 0);
	EXPECT_EQ(mt_find_field(text, "RssAnon"), -1);
	EXPECT_EQ(mt_find_field("Key: word\n", "Key"), -1);
}

TEST(Sys, ErrorsComeBackNegativeAndLeaveErrnoAlone)
{
	errno = 77;
	EXPECT_EQ(mt_sys_open("/nonexistent/file", 0, 0), -ENOENT);
	EXPECT_EQ(mt_sys_close(-1), -EBADF);
	EXPECT_EQ(errno, 77);
}

TEST(Sys, RaisedDescriptorLiesHighAndCloseOnExec)
{
	int low = mt_sys_open("/dev/null", 0, 0);
	int high = mt_sys_raise_fd(low);

	EXPECT_GT(high, 64);
	EXPECT_EQ(fcntl(high, F_GETFD), FD_CLOEXEC);
	EXPECT_EQ(fcntl(low, F_GETFD), -1);
	mt_sys_close(high);
}
