/*
 * A shell, or a program, on a terminal of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_TERMINAL_H
#define MEMTRACE_TESTS_TERMINAL_H

#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "support/harness.h"

namespace memtrace_test {

class Terminal {
    public:
	explicit Terminal(const Command &command, unsigned short columns = 80, unsigned short rows = 24)
	{
		struct winsize size = { rows, columns, 0, 0 };

		pid = forkpty(&fd_, nullptr, nullptr, &size);
		if (pid == 0) {
			std::vector<char *> argv;

			for (const std::string &word : command.argv)
				argv.push_back(const_cast<char *>(word.c_str()));
			argv.push_back(nullptr);
			setenv("MEMTRACE_QUIET", "1", 1);
			for (const auto &[name, value] : command.env)
				setenv(name.c_str(), value.c_str(), 1);
			if (chdir(command.dir.c_str()) == 0)
				execvp(argv[0], argv.data());
			_exit(127);
		}
	}
	~Terminal()
	{
		if (pid > 0) {
			kill(pid, SIGKILL);
			waitpid(pid, nullptr, 0);
		}
		close(fd_);
	}
	Terminal(const Terminal &) = delete;
	Terminal &operator=(const Terminal &) = delete;
	void Type(const std::string &keys) { ASSERT_EQ(write(fd_, keys.data(), keys.size()), (ssize_t)keys.size()); }
	void Resize(unsigned short columns, unsigned short rows)
	{
		struct winsize size = { rows, columns, 0, 0 };

		ASSERT_EQ(ioctl(fd_, TIOCSWINSZ, &size), 0);
	}
	/* Until `text` has been shown. */
	bool Shows(const std::string &text, int seconds = 20)
	{
		for (int i = 0; i < seconds * 20; i++) {
			if (shown.find(text) != std::string::npos)
				return true;
			if (!Read())
				return shown.find(text) != std::string::npos;
		}
		return false;
	}
	/* Status as of waitpid; -1: it has not ended by itself. */
	int Ends(int seconds = 20)
	{
		int status = -1;

		for (int i = 0; i < seconds * 20; i++) {
			Read();
			if (waitpid(pid, &status, WNOHANG) == pid) {
				pid = -1;
				return status;
			}
			usleep(1000);
		}
		return -1;
	}
	struct termios Modes() const
	{
		struct termios modes = {};

		EXPECT_EQ(tcgetattr(fd_, &modes), 0);
		return modes;
	}

	pid_t pid;
	std::string shown;

    private:
	/* false: nobody has the terminal open any more */
	bool Read()
	{
		struct timeval wait = { 0, 50000 };
		char some[4096];
		fd_set set;

		FD_ZERO(&set);
		FD_SET(fd_, &set);
		if (select(fd_ + 1, &set, nullptr, nullptr, &wait) <= 0)
			return true;
		ssize_t n = read(fd_, some, sizeof(some));

		if (n <= 0)
			return false;
		shown.append(some, (size_t)n);
		return true;
	}

	int fd_ = -1;
};

} // namespace memtrace_test

#endif
