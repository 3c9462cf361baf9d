/*
 * The command line: what is taken, what is refused and in which words.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "cli/options.h"

namespace {

class Parsed {
    public:
	explicit Parsed(std::vector<std::string> words) : words_(std::move(words))
	{
		char *text = nullptr;

		argv_.push_back(const_cast<char *>("memtrace-report"));
		for (auto &w : words_)
			argv_.push_back(w.data());
		rc = cli_parse(static_cast<int>(argv_.size()), argv_.data(), &opt, &text);
		if (text)
			problem = text;
		free(text);
	}
	~Parsed() { cli_release(&opt); }

	int rc;
	cli_options opt;
	std::string problem;

    private:
	std::vector<std::string> words_;
	std::vector<char *> argv_;
};

TEST(Options, NoneGivenMeansNothingRestricted)
{
	Parsed p({ "trace.bin" });

	ASSERT_EQ(p.rc, 0);
	EXPECT_FALSE(p.opt.json);
	EXPECT_EQ(p.opt.output, nullptr);
	EXPECT_EQ(p.opt.pid, 0);
	EXPECT_EQ(p.opt.top, 0);
	EXPECT_EQ(p.opt.color, COLOR_AUTO);
	EXPECT_EQ(p.opt.progress, PROGRESS_AUTO);
	ASSERT_EQ(p.opt.argument_count, 1u);
	EXPECT_STREQ(p.opt.arguments[0], "trace.bin");
}

TEST(Options, JsonDoesNotSwallowTheTrace)
{
	Parsed p({ "--json", "trace.bin" });

	ASSERT_EQ(p.rc, 0);
	EXPECT_TRUE(p.opt.json);
	EXPECT_EQ(p.opt.output, nullptr);
	ASSERT_EQ(p.opt.argument_count, 1u);
	EXPECT_STREQ(p.opt.arguments[0], "trace.bin");
}

TEST(Options, JsonTakesAFileAfterAnEqualsSign)
{
	Parsed p({ "--json=out.json", "trace.bin" });

	ASSERT_EQ(p.rc, 0);
	EXPECT_TRUE(p.opt.json);
	EXPECT_STREQ(p.opt.output, "out.json");
}

TEST(Options, ValuesComeAfterASpaceOrAnEqualsSign)
{
	Parsed p({ "--pid", "12", "--role=rank", "-oout", "--top=5", "--from", "@epoch", "--to", "9.5",
		   "--sysroot", "/mnt", "--color=never", "--no-symbols", "--no-progress", "a", "b" });

	ASSERT_EQ(p.rc, 0) << p.problem;
	EXPECT_EQ(p.opt.pid, 12);
	EXPECT_STREQ(p.opt.role, "rank");
	EXPECT_STREQ(p.opt.output, "out");
	EXPECT_EQ(p.opt.top, 5);
	EXPECT_STREQ(p.opt.from, "@epoch");
	EXPECT_STREQ(p.opt.to, "9.5");
	EXPECT_STREQ(p.opt.sysroot, "/mnt");
	EXPECT_EQ(p.opt.color, COLOR_NEVER);
	EXPECT_TRUE(p.opt.no_symbols);
	EXPECT_EQ(p.opt.progress, PROGRESS_OFF);
	EXPECT_EQ(p.opt.argument_count, 2u);
}

TEST(Options, AfterTwoDashesNothingIsAnOption)
{
	Parsed p({ "--", "--json", "-o" });

	ASSERT_EQ(p.rc, 0);
	EXPECT_FALSE(p.opt.json);
	ASSERT_EQ(p.opt.argument_count, 2u);
	EXPECT_STREQ(p.opt.arguments[0], "--json");
}

struct Refused {
	std::vector<std::string> words;
	const char *problem;
};

TEST(Options, EachMistakeIsSaidInWords)
{
	const Refused cases[] = {
		{ { "--pdi", "3" }, "option '--pdi' is not known; did you mean '--pid'?" },
		{ { "--zzzzzz" }, "option '--zzzzzz' is not known; see --help" },
		{ { "-x" }, "option '-x' is not known; see --help" },
		{ { "--pid" }, "--pid takes P" },
		{ { "--pid", "x" }, "--pid takes a number from 1 on, not 'x'" },
		{ { "--pid", "99999999999" }, "--pid: there is no such process id" },
		{ { "--top", "0" }, "--top takes a number from 1 on, not '0'" },
		{ { "--top", "3x" }, "--top takes a number from 1 on, not '3x'" },
		{ { "--top=99999999999999999999" },
		  "--top takes a number from 1 on, not '99999999999999999999'" },
		{ { "--color", "red" }, "--color takes auto/always/never, not 'red'" },
		{ { "--no-symbols=1" }, "--no-symbols takes no value" },
		{ { "-o" }, "-o takes FILE" },
		{ { "--output=" }, "--output takes FILE" },
		{ { "--fail-on", "leek" },
		  "kind of finding 'leek' is not known; did you mean 'leak'?" },
		{ { "--fail-on", "leak," }, "kind of finding '' is not known; see --help" },
		{ { "--html" }, "--html is not built yet" },
		{ { "--html=x.html" }, "--html is not built yet" },
		{ { "--redact" }, "--redact is not built yet" },
		{ { "--suppress" }, "--suppress takes FILE" },
	};

	for (const auto &c : cases) {
		Parsed p(c.words);

		EXPECT_EQ(p.rc, -1) << c.problem;
		EXPECT_EQ(p.problem, c.problem);
	}
}

TEST(Options, FailOnMatchesWholeKindsOnly)
{
	Parsed p({ "--fail-on", "gpu-leak,killed" });

	ASSERT_EQ(p.rc, 0) << p.problem;
	EXPECT_TRUE(cli_fails_on(&p.opt, "gpu-leak"));
	EXPECT_TRUE(cli_fails_on(&p.opt, "killed"));
	EXPECT_FALSE(cli_fails_on(&p.opt, "leak"));
	EXPECT_FALSE(cli_fails_on(&p.opt, "kill"));
	Parsed none({});

	EXPECT_FALSE(cli_fails_on(&none.opt, "leak"));
}

TEST(Options, HelpNamesWhatWorksAndNothingElse)
{
	strbuf sb;

	strbuf_init(&sb);
	cli_describe(&sb);
	std::string text = sb.buf;

	strbuf_release(&sb);
	for (const char *name : { "--json[=FILE]", "-o, --output FILE", "--fail-on", "--suppress FILE", "--no-progress" })
		EXPECT_NE(text.find(name), std::string::npos) << name;
	for (const char *name : { "--html", "--redact" })
		EXPECT_EQ(text.find(name), std::string::npos) << name;
}

const char *const names[] = { "summary", "sites", nullptr, "processes", "timeline" };

const char *NameAt(size_t i)
{
	return names[i];
}

TEST(Nearest, FindsSlipsButGuessesNothing)
{
	EXPECT_STREQ(cli_nearest("sumary", 5, NameAt), "summary");
	EXPECT_STREQ(cli_nearest("sties", 5, NameAt), "sites");
	EXPECT_STREQ(cli_nearest("proceses", 5, NameAt), "processes");
	EXPECT_EQ(cli_nearest("trace.bin", 5, NameAt), nullptr);
	EXPECT_EQ(cli_nearest("", 5, NameAt), nullptr);
	EXPECT_EQ(cli_nearest(std::string(300, 's').c_str(), 5, NameAt), nullptr);
}

} // namespace
