// Forks children while four threads allocate, one loops over dlopen and dlclose and one throws C++
// exceptions. Each child allocates, starts a thread, and leaves by _exit. A child that is not done
// after ten seconds counts as hung and is killed. Arguments: forks.
// Prints "forks N hung H bad B".
//
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <dlfcn.h>
#include <pthread.h>
#include <stdexcept>
#include <sys/wait.h>
#include <time.h>

#include "truth.h"

namespace
{

constexpr int child_status = 7;
constexpr double patience_s = 10;
std::atomic<bool> stop{ false };

void *allocate(void *arg)
{
	uint32_t seed = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(arg));
	void *held[32] = {};

	while (!stop) {
		void *&slot = held[truth_random(&seed) % 32];

		free(slot);
		slot = truth_keep(malloc(16 + truth_random(&seed) % 3000));
	}
	for (void *p : held)
		free(p);
	return nullptr;
}

void *load(void *)
{
	while (!stop) {
		void *handle = dlopen("libz.so.1", RTLD_NOW);

		if (handle)
			dlclose(handle);
	}
	return nullptr;
}

void *throw_often(void *)
{
	while (!stop) {
		try {
			throw std::runtime_error("thrown on purpose");
		} catch (const std::exception &) {
		}
	}
	return nullptr;
}

void *child_thread(void *)
{
	for (int i = 0; i < 50; i++)
		free(truth_keep(malloc(100)));
	return nullptr;
}

[[noreturn]] void child()
{
	void *held[100];
	pthread_t id;

	for (int i = 0; i < 100; i++)
		held[i] = truth_keep(malloc(static_cast<size_t>(i) * 10));
	if (pthread_create(&id, nullptr, child_thread, nullptr))
		_exit(9);
	pthread_join(id, nullptr);
	for (void *p : held)
		free(p);
	_exit(child_status);
}

double now_s()
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// False: it hung.
bool reap(pid_t pid, int *status)
{
	double deadline = now_s() + patience_s;

	while (waitpid(pid, status, WNOHANG) != pid) {
		if (now_s() > deadline) {
			kill(pid, SIGKILL);
			waitpid(pid, status, 0);
			return false;
		}
		usleep(200);
	}
	return true;
}

} // namespace

int main(int argc, char **argv)
{
	long forks = truth_argument(argc, argv, 1, 100);
	pthread_t ids[6];
	int hung = 0, bad = 0;

	for (long i = 0; i < 6; i++)
		if (pthread_create(&ids[i], nullptr, i < 4 ? allocate : i == 4 ? load : throw_often,
				   reinterpret_cast<void *>(i + 1)))
			return 2;
	for (long i = 0; i < forks; i++) {
		pid_t pid = fork();
		int status = 0;

		if (pid == 0)
			child();
		if (pid < 0 || !reap(pid, &status))
			hung++;
		else if (!WIFEXITED(status) || WEXITSTATUS(status) != child_status)
			bad++;
	}
	stop = true;
	for (pthread_t id : ids)
		pthread_join(id, nullptr);
	printf("forks %ld hung %d bad %d\n", forks, hung, bad);
	return hung || bad;
}
