/*
 * For integration tests: runs real programs, traced or not, in folders of their own, and reads the
 * analyzer's JSON. Programs come from the build folder. Nothing here is thread-safe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_HARNESS_H
#define MEMTRACE_TESTS_HARNESS_H

#include <cjson/cJSON.h>
#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace memtrace_test {

std::string ProgramPath(const std::string &name); /* tests/programs, built */
std::string BuildPath(const std::string &name);
std::string SourcePath(const std::string &name);
std::string ReadAll(const std::string &path); /* "" when it is not there */
void WriteAll(const std::string &path, const std::string &text);
bool Exists(const std::string &path);

/* A full count, or a tenth of it in make check: check-long sets MT_TEST_LONG. */
long Scaled(long full, long least);
bool IsLong(); /* MT_TEST_LONG is set */

class TempDir {
    public:
	explicit TempDir(const std::string &parent = ""); /* "": the system's */
	~TempDir();
	TempDir(const TempDir &) = delete;
	TempDir &operator=(const TempDir &) = delete;
	std::string File(const std::string &name) const { return path + "/" + name; }

	std::string path;
};

struct Command {
	std::vector<std::string> argv;
	std::string dir; /* to run in; "": a shared scratch folder */
	std::map<std::string, std::string> env; /* on top of ours; ours has no MEMTRACE_ of its own */
	bool traced = true;
	std::string preload; /* the whole of LD_PRELOAD; "": the shim if traced */
	double timeout_s = 120; /* then its process group is killed */
	std::function<void()> in_child; /* just before the exec: limits, descriptors, namespaces */
};

struct Result {
	int status = -1; /* as from waitpid */
	bool timed_out = false;
	std::string out, err;
	double seconds = 0;

	bool Exited(int code) const;
	int Signal() const; /* 0: it exited */
};

class Running { /* a program in the background */
    public:
	explicit Running(const Command &command);
	~Running(); /* kills and reaps what is left */
	Running(const Running &) = delete;
	Running &operator=(const Running &) = delete;
	Result Wait();
	std::string OutSoFar() const;
	bool WaitForOutput(const std::string &text, double seconds);

	pid_t pid = -1; /* also its process group */

    private:
	std::unique_ptr<TempDir> files_;
	double started_, timeout_s_;
	bool reaped_ = false;
};

Result Execute(const Command &command);
/* A test program of ours, traced, to be run in `dir`: there its trace is trace.bin. */
Command Program(const TempDir &dir, const std::string &name,
		const std::vector<std::string> &arguments = {});
std::string ShimPath();

/* "word key=1 key=2" lines of that word. */
std::vector<std::map<std::string, long>> Facts(const std::string &text, const std::string &word);

/* A JSON value; a missing key or element is a null that can be asked on. */
class Json {
    public:
	Json() = default;
	static Json Parse(const std::string &text);
	Json operator[](const char *key) const;
	Json operator[](size_t index) const;
	size_t size() const;
	bool IsNull() const { return !item_ || cJSON_IsNull(item_); }
	bool IsNumber() const { return item_ && cJSON_IsNumber(item_); }
	double Number() const; /* NAN when it is none */
	long Long() const { return IsNumber() ? (long)Number() : -1; }
	bool True() const { return item_ && cJSON_IsTrue(item_); }
	std::string Text() const;
	std::string Print() const;

    private:
	void LoadElements() const;

	std::shared_ptr<cJSON> root_;
	const cJSON *item_ = nullptr;
	mutable std::vector<const cJSON *> elements_; /* of an array, once one was asked for */
};

/* memtrace-report --json with more arguments; a failure of it fails the test. */
Json Report(const std::string &trace, const std::vector<std::string> &more = {});
Json ReportWithSymbols(const std::string &trace, const std::vector<std::string> &more = {});

/* How a program ended, with what it wrote, as a message. */
std::string Describe(const Result &result);

} // namespace memtrace_test

#endif
