// What the terminal's report looks like.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>
#include <string>

#include "render/render.h"
#include "result/result.h"

extern "C" {
#include "render/text.h"
}

namespace
{

class Terminal : public testing::Test
{
      protected:
	Terminal()
	{
		options.columns = 100;
	}

	~Terminal() override
	{
		result_free(doc);
	}

	std::string print() const
	{
		char *text = nullptr;
		size_t size = 0;
		FILE *f = open_memstream(&text, &size);

		render_terminal(root, &options, f);
		fclose(f);
		std::string out(text, size);
		free(text);
		return out;
	}

	void add_trace()
	{
		rvalue *t = r_object(doc, root, "trace"), *tree;

		r_push_string(doc, r_array(doc, t, "files"), "trace.bin");
		r_string(doc, t, "host", "node7");
		r_string(doc, t, "start", "2026-01-02T03:04:05.678Z");
		r_float(doc, t, "duration_s", 12.34);
		r_string(doc, t, "mode", "full");
		r_int(doc, t, "allocations", 1234567);
		r_int(doc, t, "bytes_allocated", 5LL << 30);
		r_int(doc, t, "trace_bytes", 3 << 20);
		r_bool(doc, t, "complete", true);
		r_push_string(doc, r_array(doc, t, "notes"), "a note");
		tree = r_object(doc, root, "tree");
		r_int(doc, tree, "processes", 2);
		r_int(doc, tree, "peak_pss_bytes", 100 << 20);
		r_float(doc, tree, "peak_s", 9.5);
	}

	void add_finding(const char *severity, const char *title)
	{
		rvalue *list = const_cast<rvalue *>(r_get(root, "findings"));
		rvalue *f = r_push_object(doc, list ? list : r_array(doc, root, "findings"));

		r_string(doc, f, "kind", "leak");
		r_string(doc, f, "severity", severity);
		r_string(doc, f, "title", title);
		r_string(doc, f, "detail", "Of 9 allocations 9 were never freed.");
		r_string(doc, f, "advice", "Free them.");
	}

	rvalue *add_process(int64_t id, int64_t pid, const char *role, const char *command)
	{
		rvalue *list = const_cast<rvalue *>(r_get(root, "processes"));
		rvalue *p = r_push_object(doc, list ? list : r_array(doc, root, "processes")), *end;

		r_int(doc, p, "id", id);
		r_int(doc, p, "pid", pid);
		r_string(doc, p, "command", command);
		r_string(doc, p, "role", role);
		end = r_object(doc, p, "end");
		r_string(doc, end, "kind", "exit");
		r_int(doc, end, "code", 0);
		r_int(doc, p, "allocations", 1000);
		r_int(doc, p, "bytes_allocated", 2048);
		r_int(doc, p, "live_at_end_bytes", 0);
		r_null(doc, p, "peak_rss_bytes");
		return p;
	}

	void add_place(const char *place, int64_t at_peak, int64_t live)
	{
		rvalue *p = r_push_object(doc, r_array(doc, root, "places"));

		r_string(doc, p, "place", place);
		r_string(doc, p, "place_function", "f");
		r_string(doc, p, "kind", "mmap");
		r_bool(doc, p, "imports", true);
		r_bool(doc, p, "python_arenas", true);
		r_int(doc, p, "at_peak_bytes", at_peak);
		r_int(doc, p, "live_bytes", live);
	}

	void add_site(const char *place, int64_t live, bool backing = false)
	{
		rvalue *list = const_cast<rvalue *>(r_get(root, "sites"));
		rvalue *s = r_push_object(doc, list ? list : r_array(doc, root, "sites")), *stack,
		       *f;

		r_string(doc, s, "kind", "heap");
		r_bool(doc, s, "backing", backing);
		r_string(doc, s, "place", place);
		r_string(doc, s, "place_function", "f");
		stack = r_array(doc, s, "stack");
		f = r_push_object(doc, stack);
		r_string(doc, f, "function", "PyObject_Malloc");
		r_bool(doc, f, "plumbing", true);
		f = r_push_object(doc, stack);
		r_string(doc, f, "function", "f");
		r_string(doc, f, "file", "/x/a.py");
		r_int(doc, f, "line", 7);
		r_int(doc, s, "live_bytes", live);
		r_int(doc, s, "live_count", 3);
	}

	result *doc = result_new();
	rvalue *root = result_root(doc);
	render_options options = {};
};

bool has(const std::string &text, const std::string &part)
{
	return text.find(part) != std::string::npos;
}

size_t widest_line(const std::string &text)
{
	std::istringstream lines(text);
	std::string line;
	size_t widest = 0;

	while (std::getline(lines, line))
		widest = std::max(widest, static_cast<size_t>(text_width(line.c_str())));
	return widest;
}

} // namespace

TEST_F(Terminal, ASmallReport)
{
	rvalue *timeline, *series, *v;

	add_trace();
	add_finding("warning",
		    "never freed: 9 blocks, 9.0 KiB, from a.py:7 in f, in main (pid 10)");
	add_process(0, 10, "main", "python a.py");
	add_process(1, 11, "dataloader-worker", "python a.py");
	rvalue *worker = r_object(doc, const_cast<rvalue *>(r_get(root, "processes")->last),
				  "worker");
	r_int(doc, worker, "index", 0);
	add_site("a.py:7", 9216);
	add_place("a.py:7", 1 << 20, 9216);
	timeline = r_object(doc, root, "timeline");
	series = r_push_object(doc, r_array(doc, timeline, "series"));
	r_null(doc, series, "proc");
	r_string(doc, series, "name", "pss");
	v = r_array(doc, series, "v");
	for (int i = 0; i < 8; i++)
		r_push_int(doc, v, i * 1024);
	r_push_null(doc, v);

	EXPECT_EQ(
		print(),
		"trace.bin: full, 12.3 s from 2026-01-02T03:04:05.678Z on node7\n"
		"2 processes (at most 100.0 MiB in memory, at 9.5 s), 1,234,567 allocations of 5.0 "
		"GiB; trace\n"
		"3.0 MiB, complete\n"
		"\n"
		"Findings\n"
		"  1. [warning] leak: never freed: 9 blocks, 9.0 KiB, from a.py:7 in f, in main "
		"(pid "
		"10)\n"
		"     Of 9 allocations 9 were never freed.\n"
		"     -> Free them.\n"
		"\n"
		"Memory by line, when each process held most\n"
		"  at peak   at end  allocations  allocated  kind    where\n"
		"  1.0 MiB  9.0 KiB            -          -  arenas  imports, from a.py:7 in f\n"
		"  arenas: Python keeps its small objects in them; the line is the one that ran "
		"when it asked for\n"
		"  one.\n"
		"\n"
		"Processes\n"
		"  pid  role                 end     allocations  allocated  live at end  peak "
		"rss  peak pss\n"
		"   10  main                 exit 0        1,000    2.0 KiB          0 B         "
		"-         -\n"
		"   11  dataloader-worker 0  exit 0        1,000    2.0 KiB          0 B         "
		"-         -\n"
		"\n"
		"Timeline\n"
		"  process        what  highest     last  over time\n"
		"  all processes  pss   7.0 KiB  7.0 KiB  _.:-=+*# \n"
		"\n"
		"Notes\n"
		"  - a note\n");
}

TEST_F(Terminal, FindingsComeBeforeTheTablesAndNoneIsSaid)
{
	add_process(0, 10, "main", "x");
	r_array(doc, root, "findings");
	std::string text = print();

	EXPECT_LT(text.find("Findings\n  none"), text.find("Processes"));
}

TEST_F(Terminal, NothingFromATraceCanCommandTheTerminal)
{
	options.utf8 = true;
	add_process(0, 10, "main",
		    "a\033[2Jb\rc\nd\x7f\xc2\x9b"
		    "31m é");
	options.columns = 200;
	std::string text = print();

	EXPECT_TRUE(has(text, "a?[2Jb?c?d??31m é")) << text;
	EXPECT_FALSE(has(text, "\033"));
}

TEST_F(Terminal, WithoutUtf8OnlyAsciiIsPrinted)
{
	add_finding("info", "é and €");
	EXPECT_TRUE(has(print(), "? and ?"));
}

TEST_F(Terminal, ColourIsOnlyThereWhenItIsAskedFor)
{
	add_finding("critical", "bad");
	EXPECT_FALSE(has(print(), "\033["));
	options.color = true;
	EXPECT_TRUE(has(print(), "\033[1;31m1. [critical] leak: bad\033[0m"));
}

TEST_F(Terminal, LinesFitTheTerminal)
{
	add_trace();
	add_finding("info", "many words that have to be wrapped because the terminal is narrow and "
			    "the sentence is not");
	add_process(0, 1234567, "dataloader-worker", "python /some/where/long/train.py --option x");
	add_site("a/very/long/path/to/some/package/module.py:1234", 1 << 30);
	for (int columns : { 40, 60, 80, 100, 200 }) {
		options.columns = columns;
		EXPECT_LE(widest_line(print()), static_cast<size_t>(columns)) << print();
	}
}

TEST_F(Terminal, NarrowTablesLoseWhatMattersLeast)
{
	add_process(0, 10, "main", "python a.py");
	options.columns = 200;
	EXPECT_TRUE(has(print(), "peak live"));
	EXPECT_TRUE(has(print(), "python a.py"));
	options.columns = 60;
	EXPECT_FALSE(has(print(), "peak live"));
	EXPECT_TRUE(has(print(), "live at end"));
}

TEST_F(Terminal, OneSectionInFullHasEveryRowAndStacksWithoutPlumbing)
{
	add_process(0, 10, "main", "x");
	for (int i = 0; i < 15; i++)
		add_site(("a.py:" + std::to_string(100 + i)).c_str(), 1000 - i);
	EXPECT_FALSE(has(print(), "a.py:100 in f")) << "a summary has lines, not stacks";
	options.only = "sites";
	options.full = true;
	std::string text = print();

	EXPECT_TRUE(has(text, "a.py:114 in f"));
	EXPECT_TRUE(has(text, "      f  /x/a.py:7\n"));
	EXPECT_FALSE(has(text, "PyObject_Malloc"));
	EXPECT_TRUE(has(text, "(1 frames of the interpreter are not shown)"));
	EXPECT_FALSE(has(text, "Processes"));
}

TEST_F(Terminal, StepsAreOneLineUnlessAllIsAskedFor)
{
	rvalue *list = r_array(doc, root, "marks");

	for (int i = 0; i < 30; i++) {
		rvalue *m = r_push_object(doc, list);

		r_float(doc, m, "t", i + 0.5);
		r_string(doc, m, "label", i == 7 ? "warm" : "step");
		r_string(doc, m, "kind", i == 7 ? "mark" : "step");
		if (i != 7)
			r_int(doc, m, "step", i);
	}
	EXPECT_TRUE(has(print(), "       7.500 s  mark   warm\n  29 steps from 0.500 s to 29.500 s\n"));
	EXPECT_FALSE(has(print(), "more: memtrace-report timeline"));
	options.full = true;
	EXPECT_TRUE(has(print(), "      29.500 s  step   step 29\n"));
}

TEST_F(Terminal, AnIncompleteTraceIsSaidAtTheTop)
{
	rvalue *t = r_object(doc, root, "trace");

	r_bool(doc, t, "complete", false);
	r_bool(doc, t, "recovered", true);
	r_int(doc, t, "lost_events", 12345);
	EXPECT_TRUE(has(print(), "not complete, damaged and read as far as possible, 12,345 events "
				 "lost"))
		<< print();
}

TEST_F(Terminal, ACheckShowsItsCountsAndOnlyRealProblems)
{
	rvalue *c = r_push_object(doc, r_array(doc, root, "checks")), *list, *v;
	const struct {
		const char *text;
		bool problem;
		int64_t value;
	} counts[] = { { "chunks", false, 3 }, { "bytes missing", true, 0 }, { "lost", true, 7 } };

	r_string(doc, c, "file", "trace.bin");
	r_int(doc, c, "bytes", 4096);
	r_bool(doc, c, "whole", false);
	list = r_array(doc, c, "counts");
	for (const auto &row : counts) {
		v = r_push_object(doc, list);
		r_string(doc, v, "text", row.text);
		r_bool(doc, v, "problem", row.problem);
		r_int(doc, v, "value", row.value);
	}
	r_push_string(doc, r_array(doc, root, "notes"), "a note");
	EXPECT_EQ(print(), "trace.bin (4.0 KiB): not whole\n"
			   "  count  of what\n"
			   "      3  chunks\n"
			   "      7  lost\n"
			   "\n"
			   "Notes\n"
			   "  - a note\n");
}

TEST(Text, SizesAndCountsAreReadable)
{
	const struct {
		int64_t value;
		const char *size, *count;
	} cases[] = {
		{ 0, "0 B", "0" },
		{ 1023, "1023 B", "1,023" },
		{ 1024, "1.0 KiB", "1,024" },
		{ 1536, "1.5 KiB", "1,536" },
		{ 1048575, "1.0 MiB", "1,048,575" },
		{ 123456789, "117.7 MiB", "123,456,789" },
		{ INT64_MAX, "8.0 EiB", "9,223,372,036,854,775,807" },
		{ -5, "-5 B", "-5" },
	};

	for (const auto &c : cases) {
		rvalue v = {};
		struct strbuf size = STRBUF_INIT, count = STRBUF_INIT;

		v.kind = R_INT;
		v.u.integer = c.value;
		text_size(&size, &v);
		text_count(&count, &v);
		EXPECT_STREQ(size.buf, c.size);
		EXPECT_STREQ(count.buf, c.count);
		strbuf_release(&size);
		strbuf_release(&count);
	}
}

TEST(Renderers, AreFoundByName)
{
	EXPECT_EQ(renderer_find("json")->render, render_json);
	EXPECT_EQ(renderer_find("terminal")->render, render_terminal);
	EXPECT_EQ(renderer_find("html"), nullptr);
}
