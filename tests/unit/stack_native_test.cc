/*
 * preload/stack/native.c and walk.c against other unwinders: every shape of stack must give, frame
 * by frame, what libgcc's unwinder and (where it is installed) libunwind find on the same stack.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <alloca.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <functional>
#include <random>
#include <stdexcept>
#include <thread>

#include "stack_referee.h"

namespace
{

using namespace referee;

/* ---- shapes ---- */

__attribute__((noinline)) void recurse(Sink *sink, int depth)
{
	if (depth % 5 == 0)
		check(sink);
	if (depth)
		recurse(sink, depth - 1);
	BARRIER();
}

__attribute__((noinline)) void with_alloca(Sink *sink, int depth)
{
	volatile char *p = static_cast<char *>(alloca(size_t(depth * 37 % 500 + 1)));

	p[0] = 1;
	check(sink);
	if (depth)
		with_alloca(sink, depth - 1);
	p[0] = 2;
}

__attribute__((noinline)) void realigned(Sink *sink, int depth)
{
	alignas(64) volatile char aligned[64];
	volatile char *p = static_cast<char *>(alloca(size_t(depth * 16 + 16)));

	aligned[0] = p[0] = 1;
	check(sink);
	if (depth)
		realigned(sink, depth - 1);
	p[0] = aligned[0];
}

Sink *current;

int compare(const void *a, const void *b)
{
	check(current);
	return *static_cast<const int *>(a) - *static_cast<const int *>(b);
}

void callbacks(Sink *sink)
{
	int values[] = { 5, 3, 9, 1, 7 };

	current = sink;
	qsort(values, 5, sizeof(values[0]), compare);
}

void handler(int)
{
	check(current);
	recurse(current, 10);
}

void signals(Sink *sink, int flags)
{
	struct sigaction action = {}, old;
	size_t size = 1 << 18;
	stack_t other = {}, none = {};

	current = sink;
	action.sa_handler = handler;
	action.sa_flags = flags;
	other.ss_size = size;
	other.ss_sp = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			   0);
	none.ss_flags = SS_DISABLE;
	sigaltstack(&other, nullptr);
	sigaction(SIGUSR1, &action, &old);
	raise(SIGUSR1);
	sigaction(SIGUSR1, &old, nullptr);
	sigaltstack(&none, nullptr);
	munmap(other.ss_sp, size);
	check(sink);
}

/* A signal that meets the code at an instruction of its choice, not behind a call. */
volatile sig_atomic_t ticks;

void tick(int)
{
	ticks = ticks + 1;
	check(current);
}

__attribute__((noinline)) int busy(int n)
{
	volatile int sum = 0;

	for (int i = 0; i < n; i++)
		sum = sum + i % 3;
	return sum;
}

ucontext_t main_context, coroutine_context;

void coroutine()
{
	for (int i = 0; i < 4; i++) {
		recurse(current, 20);
		swapcontext(&coroutine_context, &main_context);
	}
}

__attribute__((noinline)) void thrower(Sink *sink, int depth)
{
	struct Guard {
		Sink *sink;
		~Guard()
		{
			check(sink);
		}
	} guard = { sink };

	if (depth == 0)
		throw std::runtime_error("out");
	thrower(sink, depth - 1);
	BARRIER();
}

class NativeStacks : public NativeStacksBase
{
};

TEST_F(NativeStacks, Recursion)
{
	recurse(sink.get(), 300);
	recurse(sink.get(), 20);
	recurse(sink.get(), 300);
	EXPECT_GT(compared, 20000u);
}

TEST_F(NativeStacks, FramesOfVariableSize)
{
	with_alloca(sink.get(), 80);
	with_alloca(sink.get(), 20);
	EXPECT_GT(compared, 3000u);
}

TEST_F(NativeStacks, RealignedFrames)
{
	realigned(sink.get(), 40);
	EXPECT_GT(compared, 800u);
}

TEST_F(NativeStacks, CallbacksThroughTheCLibrary)
{
	callbacks(sink.get());
	EXPECT_GT(compared, 50u);
}

TEST_F(NativeStacks, SignalHandlersOnTheSameStack)
{
	if (!kSignals)
		GTEST_SKIP();
	signals(sink.get(), 0);
	EXPECT_GT(compared, 50u);
}

TEST_F(NativeStacks, SignalHandlersOnAStackOfTheirOwn)
{
	if (!kSignals)
		GTEST_SKIP();
	signals(sink.get(), SA_ONSTACK);
	EXPECT_GT(compared, 50u);
}

TEST_F(NativeStacks, SignalsBetweenAnyTwoInstructions)
{
	struct sigaction action = {}, old;
	struct itimerval timer = { { 0, 500 }, { 0, 500 } }, stop = {};
	int sum = 0;

	if (!kSignals)
		GTEST_SKIP();
	current = sink.get();
	action.sa_handler = tick;
	action.sa_flags = SA_RESTART;
	sigaction(SIGPROF, &action, &old);
	ticks = 0;
	setitimer(ITIMER_PROF, &timer, nullptr);
	while (ticks < 50)
		sum += busy(1000);
	setitimer(ITIMER_PROF, &stop, nullptr);
	sigaction(SIGPROF, &old, nullptr);
	EXPECT_NE(sum, -1);
}

/* An instruction that faults is the first of its function: the byte before it belongs to another.
 */
__asm__(".text\n"
	".type stack_test_first, @function\n"
	"stack_test_first:\n"
	".cfi_startproc\n"
	"	ud2\n"
	"	ret\n"
	".cfi_endproc\n"
	".size stack_test_first, . - stack_test_first\n");
extern "C" void stack_test_first(void) __attribute__((visibility("hidden")));

void at_first(int, siginfo_t *, void *context)
{
	check(current);
	static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP] += 2; /* over the ud2 */
}

TEST_F(NativeStacks, SignalAtTheFirstInstructionOfAFunction)
{
	struct sigaction action = {}, old;

	if (!kSignals)
		GTEST_SKIP();
	current = sink.get();
	action.sa_sigaction = at_first;
	action.sa_flags = SA_SIGINFO;
	sigaction(SIGILL, &action, &old);
	for (int i = 0; i < 3; i++)
		stack_test_first();
	sigaction(SIGILL, &old, nullptr);
	EXPECT_GT(compared, 20u);
}

TEST_F(NativeStacks, Coroutines)
{
	size_t size = 1 << 18;
	void *stack = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			   0);

	current = sink.get();
	getcontext(&coroutine_context);
	coroutine_context.uc_stack.ss_sp = stack;
	coroutine_context.uc_stack.ss_size = size;
	coroutine_context.uc_link = nullptr;
	makecontext(&coroutine_context, coroutine, 0);
	for (int i = 0; i < 4; i++) {
		swapcontext(&main_context, &coroutine_context);
		check(sink.get());
	}
	munmap(stack, size);
	check(sink.get());
	EXPECT_GT(compared, 200u);
}

/* The stack of a coroutine that ended is unmapped while others run below it. */
TEST_F(NativeStacks, CoroutinesOfAThreadWhoseStacksVanish)
{
	std::thread([&] {
		size_t size = 1 << 18;
		auto *map = static_cast<char *>(mmap(nullptr, 8 * size, PROT_READ | PROT_WRITE,
						     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

		check(sink.get());
		current = sink.get();
		for (int i = 7; i >= 0; i--) {
			getcontext(&coroutine_context);
			coroutine_context.uc_stack.ss_sp = map + size_t(i) * size;
			coroutine_context.uc_stack.ss_size = size;
			coroutine_context.uc_link = nullptr;
			makecontext(&coroutine_context, coroutine, 0);
			swapcontext(&main_context, &coroutine_context);
			check(sink.get());
			munmap(map + size_t(i) * size, size);
		}
	}).join();
	EXPECT_GT(compared, 200u);
}

TEST_F(NativeStacks, DestructorsThatAnExceptionRuns)
{
	for (int i = 0; i < 20; i++)
		EXPECT_THROW(thrower(sink.get(), i), std::runtime_error);
	EXPECT_GT(compared, 1000u);
}

TEST_F(NativeStacks, Threads)
{
	std::vector<std::unique_ptr<Sink>> sinks;
	std::vector<std::thread> threads;

	for (int i = 0; i < 4; i++)
		sinks.push_back(std::make_unique<Sink>());
	for (int i = 0; i < 4; i++)
		threads.emplace_back([&, i] {
			recurse(sinks[size_t(i)].get(), 40 * i);
			with_alloca(sinks[size_t(i)].get(), 10);
		});
	for (std::thread &t : threads)
		t.join();
	EXPECT_GT(compared, 500u);
}

/* One struct serves many threads, one after the other: stacks of the last one are nothing to it. */
TEST_F(NativeStacks, StructHandedOnToAnotherThread)
{
	for (int i = 0; i < 20; i++)
		std::thread([&] { recurse(sink.get(), 11 * i % 50); }).join();
	recurse(sink.get(), 20);
	EXPECT_GT(compared, 500u);
}

TEST_F(NativeStacks, RandomWalksUpAndDown)
{
	std::mt19937 random(3);
	std::function<void(int)> go = [&](int depth) {
		volatile char *p = static_cast<char *>(alloca(random() % 3 * 48 + 1));

		p[0] = 1;
		check(sink.get());
		for (unsigned n = random() % 3; n && depth; n--)
			go(depth - 1);
		if (random() % 4 == 0)
			realigned(sink.get(), int(random() % 3));
		check(sink.get());
	};

	for (int i = 0; i < 60; i++)
		go(9);
	EXPECT_GT(compared, 10000u);
}

/*
 * Nothing tells these stacks from the ones before them at the inner end: same leaf, same slot. What
 * differs lies further out, and in the last case the old return addresses are still in memory, in
 * room that nobody has written to since.
 */
__attribute__((noinline)) void two_sites(Sink *sink, unsigned path, int depth)
{
	if (depth == 0)
		check(sink);
	else if (path & 1)
		two_sites(sink, path >> 1, depth - 1);
	else
		two_sites(sink, path >> 1, depth - 1);
	BARRIER();
}

TEST_F(NativeStacks, SameLeafCalledByOthers)
{
	for (unsigned path = 0; path < 256; path++)
		two_sites(sink.get(), path * 73, 8);
	EXPECT_GT(compared, 256u * 9);
}

enum Between { kNothing, kLeavesRbp, kSavesRbp };

__attribute__((noinline)) void leaves_rbp(Sink *sink)
{
	check(sink);
	BARRIER();
}

__attribute__((noinline)) void saves_rbp(Sink *sink)
{
	__asm__ volatile("xor %%ebp, %%ebp" ::: "rbp");
	check(sink);
	BARRIER();
}

__attribute__((noinline)) void inner_room(Sink *sink, size_t room, Between between)
{
	char *volatile p = static_cast<char *>(alloca(room));

	(void)p;
	if (between == kLeavesRbp)
		leaves_rbp(sink);
	else if (between == kSavesRbp)
		saves_rbp(sink);
	else
		check(sink);
	BARRIER();
}

__attribute__((noinline)) void outer_room(Sink *sink, size_t room, size_t inner, Between between,
					  int site)
{
	char *volatile p = static_cast<char *>(alloca(room));

	(void)p;
	if (site)
		inner_room(sink, inner, between);
	else
		inner_room(sink, inner, between);
	BARRIER();
}

TEST_F(NativeStacks, OldFramesInRoomThatWasNotWritten)
{
	for (Between between : { kNothing, kLeavesRbp, kSavesRbp })
		for (size_t move = 16; move <= 1024; move += 16)
			for (int round = 0; round < 4;
			     round++) /* one call: the same outer frames */
				outer_room(sink.get(), round & 1 ? 16 + move : 16,
					   round & 1 ? 1024 : 1024 + move, between,
					   round / 2 ^ (round & 1));
	EXPECT_GT(compared, 3000u);
}

TEST_F(NativeStacks, ForkedChildGoesOn)
{
	pid_t pid;
	int status = -1;

	recurse(sink.get(), 30);
	pid = fork();
	if (pid == 0) {
		mt_stack_child(&sink->t);
		recurse(sink.get(), 60);
		with_alloca(sink.get(), 20);
		_exit(HasFailure() ? 1 : compared > 1000 ? 0 : 2);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
}

TEST_F(NativeStacks, ForkWhileAnotherThreadUnloads)
{
	pid_t pid;
	int status = -1;

	mt_stack_unload_begin(); /* of a thread that the child does not have */
	pid = fork();
	if (pid == 0) {
		mt_stack_child(&sink->t);
		recurse(sink.get(), 10);
		_exit(HasFailure() ? 1 : mt_modules_unloading ? 2 : 0);
	}
	mt_stack_unload_end(&sink->t);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(mt_modules_unloading, 0u);
}

TEST_F(NativeStacks, ForkInAThreadOfAThreadedProcess)
{
	std::atomic<bool> stop{ false };
	std::thread other([&] {
		Sink own;
		while (!stop)
			recurse(&own, 25);
	});
	std::thread([&] {
		for (int i = 0; i < 20; i++) {
			std::unique_lock<std::mutex> lock(dictionary);
			pid_t pid = fork();
			int status = -1;

			lock.unlock();
			if (pid == 0) {
				mt_stack_child(&sink->t);
				recurse(sink.get(), 35);
				_exit(HasFailure() ? 1 : 0);
			}
			ASSERT_EQ(waitpid(pid, &status, 0), pid);
			EXPECT_EQ(status, 0);
		}
	}).join();
	stop = true;
	other.join();
}

} // namespace
