// The driver's options become variables of the environment, or a message and a status.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <stdlib.h>

#include <string>
#include <vector>

extern "C" {
#include "control/control.h"
}

namespace
{

struct Outcome {
	int status, at;
	std::string said;
};

/* run_option on "run" and these words. */
Outcome Option(std::vector<std::string> words)
{
	std::vector<char *> argv = { const_cast<char *>("run") };
	Outcome outcome = { 0, 1, "" };

	for (std::string &word : words)
		argv.push_back(word.data());
	argv.push_back(nullptr);
	testing::internal::CaptureStderr();
	outcome.status = run_option((int)argv.size() - 1, argv.data(), &outcome.at);
	outcome.said = testing::internal::GetCapturedStderr();
	return outcome;
}

std::string Variable(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "(unset)";
}

class DriverOptions : public testing::Test
{
      protected:
	void SetUp() override
	{
		Clear();
	}
	void TearDown() override
	{
		Clear();
	}
	static void Clear()
	{
		for (const char *name :
		     { "MEMTRACE_OUT", "MEMTRACE_DEPTH", "MEMTRACE_QUIET", "MEMTRACE_MAX_BYTES",
		       "MEMTRACE_INTERVAL", "MEMTRACE_MODE" })
			unsetenv(name);
	}
};

} // namespace

TEST_F(DriverOptions, ValueAsNextWordOrAfterEquals)
{
	Outcome next = Option({ "--out", "a.bin", "prog" });

	EXPECT_EQ(next.status, 0) << next.said;
	EXPECT_EQ(next.at, 3);
	EXPECT_EQ(Variable("MEMTRACE_OUT"), "a.bin");

	Outcome equals = Option({ "--out=b=c.bin", "prog" });

	EXPECT_EQ(equals.status, 0) << equals.said;
	EXPECT_EQ(equals.at, 2);
	EXPECT_EQ(Variable("MEMTRACE_OUT"), "b=c.bin");

	Outcome brief = Option({ "-o", "d.bin" });

	EXPECT_EQ(brief.status, 0) << brief.said;
	EXPECT_EQ(Variable("MEMTRACE_OUT"), "d.bin");
}

TEST_F(DriverOptions, ASwitchTakesNoWord)
{
	Outcome outcome = Option({ "--quiet", "prog" });

	EXPECT_EQ(outcome.status, 0) << outcome.said;
	EXPECT_EQ(outcome.at, 2);
	EXPECT_EQ(Variable("MEMTRACE_QUIET"), "1");
}

TEST_F(DriverOptions, SizesAndSecondsKeepTheirSuffix)
{
	EXPECT_EQ(Option({ "--max-bytes", "10M" }).status, 0);
	EXPECT_EQ(Variable("MEMTRACE_MAX_BYTES"), "10M");
	EXPECT_EQ(Option({ "--interval", "0.25" }).status, 0);
	EXPECT_EQ(Variable("MEMTRACE_INTERVAL"), "0.25");
}

TEST_F(DriverOptions, BadValuesAreToldAndNotSet)
{
	struct {
		const char *option, *value, *variable;
	} bad[] = {
		{ "--depth", "1", "MEMTRACE_DEPTH" },
		{ "--depth", "0x10", "MEMTRACE_DEPTH" },
		{ "--depth", "-5", "MEMTRACE_DEPTH" },
		{ "--depth", "2000", "MEMTRACE_DEPTH" },
		{ "--max-bytes", "1e3", "MEMTRACE_MAX_BYTES" },
		{ "--max-bytes", "5Q", "MEMTRACE_MAX_BYTES" },
		{ "--interval", "1s", "MEMTRACE_INTERVAL" },
		{ "--mode", "ful", "MEMTRACE_MODE" },
		{ "--mode", "", "MEMTRACE_MODE" },
		{ "--out", "", "MEMTRACE_OUT" },
	};

	for (const auto &b : bad) {
		Outcome outcome = Option({ b.option, b.value });

		EXPECT_EQ(outcome.status, EXIT_OWN_FAILURE) << b.option << " " << b.value;
		EXPECT_NE(outcome.said.find(b.option), std::string::npos) << outcome.said;
		EXPECT_EQ(Variable(b.variable), "(unset)") << b.option << " " << b.value;
	}
}

TEST_F(DriverOptions, UnknownNamesAndMissingValuesAreTold)
{
	EXPECT_EQ(Option({ "--otu", "x" }).status, EXIT_OWN_FAILURE);
	EXPECT_NE(Option({ "--otu", "x" }).said.find("--otu"), std::string::npos);
	EXPECT_EQ(Option({ "--out" }).status, EXIT_OWN_FAILURE);
	/* Set by memtrace itself only. */
	EXPECT_EQ(Option({ "--trace", "x" }).status, EXIT_OWN_FAILURE);
}
