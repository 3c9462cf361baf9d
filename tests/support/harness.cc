/*
 * Running programs and reading reports. See harness.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "support/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace memtrace_test {

namespace {

double Now()
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double Scale()
{
	const char *text = getenv("MT_TEST_LONG");

	return text && *text && strcmp(text, "0") ? 1 : 0.1;
}

/* Our environment without what would trace the child by accident, and the command's on top. */
std::vector<std::string> Environment(const Command &command)
{
	std::map<std::string, std::string> all;
	std::vector<std::string> list;

	for (char **e = environ; *e; e++) {
		std::string entry = *e;
		size_t equals = entry.find('=');

		if (entry.rfind("MEMTRACE_", 0) != 0 && entry.rfind("LD_PRELOAD=", 0) != 0 &&
		    equals != std::string::npos)
			all[entry.substr(0, equals)] = entry.substr(equals + 1);
	}
	if (!command.preload.empty())
		all["LD_PRELOAD"] = command.preload;
	else if (command.traced)
		all["LD_PRELOAD"] = ShimPath();
	for (const auto &[key, value] : command.env)
		all[key] = value;
	for (const auto &[key, value] : all)
		list.push_back(key + "=" + value);
	return list;
}

[[noreturn]] void Become(const Command &command, const std::string &files)
{
	std::vector<std::string> environment = Environment(command);
	std::vector<char *> argv, envp;
	int in = open("/dev/null", O_RDONLY);
	int out = open((files + "/out").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
	int err = open((files + "/err").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);

	for (const std::string &word : command.argv)
		argv.push_back(const_cast<char *>(word.c_str()));
	argv.push_back(nullptr);
	for (const std::string &entry : environment)
		envp.push_back(const_cast<char *>(entry.c_str()));
	envp.push_back(nullptr);
	setpgid(0, 0);
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	for (int fd = 3; fd < 256; fd++)
		close(fd);
	if (!command.dir.empty() && chdir(command.dir.c_str()))
		_exit(126);
	/* A shell starts background jobs with these ignored, nohup with SIGHUP, Python with SIGPIPE;
	 * an ignored signal can't be trapped. */
	for (int s : { SIGHUP, SIGINT, SIGQUIT, SIGPIPE })
		signal(s, SIG_DFL);
	if (command.in_child)
		command.in_child();
	execvpe(argv[0], argv.data(), envp.data());
	_exit(127);
}

} // namespace

std::string BuildPath(const std::string &name) { return std::string(MT_BUILD_DIR "/") + name; }
std::string SourcePath(const std::string &name) { return std::string(MT_SOURCE_DIR "/") + name; }
std::string ProgramPath(const std::string &name) { return BuildPath("programs/" + name); }
std::string ShimPath() { return BuildPath("libmemtrace.so"); }
long Scaled(long full, long least) { return std::max(least, (long)((double)full * Scale())); }
bool IsLong() { return Scale() == 1; }
bool Exists(const std::string &path) { return access(path.c_str(), F_OK) == 0; }

std::string ReadAll(const std::string &path)
{
	std::ifstream file(path, std::ios::binary);
	std::ostringstream text;

	text << file.rdbuf();
	return text.str();
}

void WriteAll(const std::string &path, const std::string &text)
{
	std::ofstream(path, std::ios::binary) << text;
}

TempDir::TempDir(const std::string &parent)
{
	const char *tmp = getenv("TMPDIR");
	std::string name = (parent.empty() ? tmp ? tmp : "/tmp" : parent) + "/memtrace-test-XXXXXX";

	if (!mkdtemp(name.data())) {
		perror(name.c_str());
		abort();
	}
	path = name;
}

TempDir::~TempDir()
{
	std::error_code ignored;

	if (getenv("MEMTRACE_TEST_KEEP"))
		fprintf(stderr, "kept %s\n", path.c_str());
	else
		std::filesystem::remove_all(path, ignored);
}

bool Result::Exited(int code) const
{
	return !timed_out && WIFEXITED(status) && WEXITSTATUS(status) == code;
}

int Result::Signal() const { return WIFSIGNALED(status) ? WTERMSIG(status) : 0; }

Running::Running(const Command &command)
	: files_(new TempDir), started_(Now()), timeout_s_(command.timeout_s)
{
	Command copy = command;

	if (copy.dir.empty())
		copy.dir = files_->path;
	pid = fork();
	if (pid == 0)
		Become(copy, files_->path);
	setpgid(pid, pid);
}

Running::~Running()
{
	int status;

	if (reaped_ || pid <= 0)
		return;
	kill(-pid, SIGKILL);
	waitpid(pid, &status, 0);
}

std::string Running::OutSoFar() const { return ReadAll(files_->File("out")); }

bool Running::WaitForOutput(const std::string &text, double seconds)
{
	for (double end = Now() + seconds; Now() < end; usleep(5000))
		if (OutSoFar().find(text) != std::string::npos)
			return true;
	return false;
}

Result Running::Wait()
{
	Result result;

	while (waitpid(pid, &result.status, WNOHANG) == 0) {
		if (Now() - started_ > timeout_s_) {
			result.timed_out = true;
			kill(-pid, SIGKILL);
			waitpid(pid, &result.status, 0);
			break;
		}
		usleep(1000);
	}
	reaped_ = true;
	result.seconds = Now() - started_;
	result.out = ReadAll(files_->File("out"));
	result.err = ReadAll(files_->File("err"));
	return result;
}

Result Execute(const Command &command)
{
	return Running(command).Wait();
}

Command Program(const TempDir &dir, const std::string &name,
		const std::vector<std::string> &arguments)
{
	Command command;

	command.argv = { ProgramPath(name) };
	command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
	command.dir = dir.path;
	return command;
}

std::string Describe(const Result &result)
{
	std::ostringstream text;

	text << (result.timed_out ? "timed out; " : "");
	if (result.Signal())
		text << "signal " << result.Signal();
	else
		text << "exit status " << WEXITSTATUS(result.status);
	text << "\nstdout: " << result.out.substr(0, 2000) << "\nstderr: "
	     << result.err.substr(0, 2000);
	return text.str();
}

std::vector<std::map<std::string, long>> Facts(const std::string &text, const std::string &word)
{
	std::vector<std::map<std::string, long>> list;
	std::istringstream lines(text);

	for (std::string line; std::getline(lines, line);) {
		std::istringstream words(line);
		std::string first, item;

		if (!(words >> first) || first != word)
			continue;
		list.emplace_back();
		while (words >> item)
			if (size_t equals = item.find('='); equals != std::string::npos)
				list.back()[item.substr(0, equals)] = atol(item.c_str() + equals + 1);
	}
	return list;
}

Json Json::Parse(const std::string &text)
{
	Json json;

	json.root_.reset(cJSON_Parse(text.c_str()), cJSON_Delete);
	json.item_ = json.root_.get();
	return json;
}

Json Json::operator[](const char *key) const
{
	Json json;

	json.root_ = root_;
	json.item_ = cJSON_IsObject(item_) ? cJSON_GetObjectItemCaseSensitive(item_, key) : nullptr;
	return json;
}

Json Json::operator[](size_t index) const
{
	Json json;

	LoadElements();
	json.root_ = root_;
	json.item_ = cJSON_IsArray(item_) && index < elements_.size() ? elements_[index] : nullptr;
	return json;
}

/* cJSON keeps a list, and to count or to look up by number takes linear time each. */
void Json::LoadElements() const
{
	if (elements_.empty() && (cJSON_IsArray(item_) || cJSON_IsObject(item_)))
		for (const cJSON *e = item_->child; e; e = e->next)
			elements_.push_back(e);
}

size_t Json::size() const
{
	LoadElements();
	return elements_.size();
}

double Json::Number() const { return IsNumber() ? item_->valuedouble : NAN; }
std::string Json::Text() const { return cJSON_IsString(item_) ? item_->valuestring : ""; }

std::string Json::Print() const
{
	char *text = item_ ? cJSON_Print(item_) : nullptr;
	std::string copy = text ? text : "(none)";

	free(text);
	return copy;
}

Json Report(const std::string &trace, const std::vector<std::string> &more)
{
	std::vector<std::string> options = more;

	options.insert(options.begin(), "--no-symbols");
	return ReportWithSymbols(trace, options);
}

Json ReportWithSymbols(const std::string &trace, const std::vector<std::string> &more)
{
	Command command;

	command.argv = { BuildPath("memtrace-report"), "--json" };
	command.argv.insert(command.argv.end(), more.begin(), more.end());
	command.argv.push_back(trace);
	command.traced = false;
	Result result = Execute(command);
	Json json = Json::Parse(result.out);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_FALSE(json.IsNull()) << "not JSON: " << result.out.substr(0, 500);
	return json;
}

} // namespace memtrace_test
