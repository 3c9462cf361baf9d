/*
 * What headers promise: each compiles alone, those of include/memtrace as C11 and as C++17 without
 * extensions, and a program that uses the marks links and runs where the shim is not.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace
{

namespace fs = std::filesystem;

std::string Compiler(const char *variable, const char *fallback)
{
	const char *named = getenv(variable);

	return named && *named ? named : fallback;
}

/* Exit status of a shell command; what it said goes to *said. */
int ShellRun(const std::string &command, std::string *said)
{
	FILE *out = popen((command + " 2>&1").c_str(), "r");
	char buf[4096];
	size_t n;

	said->clear();
	while ((n = fread(buf, 1, sizeof(buf), out)) > 0)
		said->append(buf, n);
	int status = pclose(out);

	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::vector<std::string> Headers(const std::string &folder)
{
	std::vector<std::string> out;

	for (const auto &entry : fs::recursive_directory_iterator(MT_SOURCE_DIR "/" + folder))
		if (entry.path().extension() == ".h")
			out.push_back(entry.path().string());
	return out;
}

const char kWarnings[] = " -Wall -Wextra -Wshadow -Werror -I" MT_SOURCE_DIR "/include ";

/* Compiles the header as the whole of a translation unit, so that it has to bring what it uses. */
void ExpectAlone(const std::string &header, const std::string &compile)
{
	std::string said;

	EXPECT_EQ(ShellRun("echo '#include \"" + header + "\"' | " + compile + " -fsyntax-only -", &said), 0)
		<< said;
}

TEST(Headers, TheSharedOnesAreC11AndCxx17EachAlone)
{
	std::vector<std::string> headers = Headers("include/memtrace");

	ASSERT_GE(headers.size(), 4u);
	for (const std::string &header : headers) {
		ExpectAlone(header, Compiler("CC", "cc") + " -x c -std=c11 -pedantic" + kWarnings);
		ExpectAlone(header, Compiler("CXX", "c++") + " -x c++ -std=c++17 -pedantic" + kWarnings);
	}
}

TEST(Headers, ThoseOfTheShimCompileAlone)
{
	for (const std::string &header : Headers("preload"))
		ExpectAlone(header, Compiler("CC", "cc") + " -x c -std=gnu11 -D_GNU_SOURCE -fPIC -I"
				    MT_SOURCE_DIR "/preload" + kWarnings);
}

TEST(Headers, ThoseOfTheAnalyzerCompileAlone)
{
	for (const std::string &header : Headers("analyzer"))
		ExpectAlone(header, Compiler("CC", "cc") + " -x c -std=gnu11 -D_GNU_SOURCE -I"
				    MT_SOURCE_DIR "/analyzer" + kWarnings);
}

const char kMarks[] = R"(
#include <memtrace/memtrace.h>
int main(void)
{
	memtrace_phase("load");
	memtrace_step(7);
	memtrace_mark("here");
	memtrace_pause();
	memtrace_resume();
	memtrace_phase(0);
	if (memtrace_step)
		memtrace_step(8);
	return 0;
}
)";

TEST(Headers, MarksLinkAndRunWithoutTheShim)
{
	std::string dir = testing::TempDir() + "marks-alone-XXXXXX", said;

	ASSERT_NE(mkdtemp(&dir[0]), nullptr);
	std::string source = dir + "/marks.c", program = dir + "/marks";

	std::ofstream(source) << kMarks;
	for (const std::string &compile :
	     { Compiler("CC", "cc") + " -x c -std=c11 -pedantic -O0", Compiler("CC", "cc") + " -x c -std=c11 -O2",
	       Compiler("CC", "cc") + " -x c -std=c11 -O2 -fno-pie -no-pie",
	       Compiler("CXX", "c++") + " -x c++ -std=c++17 -pedantic -O2" }) {
		ASSERT_EQ(ShellRun(compile + kWarnings + "-Wno-address " + source + " -o " + program, &said), 0)
			<< compile << "\n"
			<< said;
		EXPECT_EQ(ShellRun("env -u LD_PRELOAD " + program, &said), 0) << compile << "\n" << said;
	}
	fs::remove_all(dir);
}

} // namespace
