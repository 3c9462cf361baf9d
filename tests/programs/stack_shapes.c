/*
 * Allocates from every shape of stack that an unwinder has to get through: deep recursion, alloca,
 * realigned frames, callbacks through the C library, signal handlers on the own and on a stack of
 * their own, coroutines, threads. Prints how many allocations it made from each.
 *
 *	stack_shapes [ROUNDS]
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static unsigned long made;
static void *volatile sink;

static __attribute__((noinline)) void allocate(size_t size)
{
	sink = malloc(size);
	free(sink);
	__atomic_fetch_add(&made, 1, __ATOMIC_RELAXED);
}

static __attribute__((noinline)) int recurse(int depth)
{
	if (depth % 7 == 0)
		allocate((size_t)depth + 1);
	if (depth == 0)
		return 1;
	return recurse(depth - 1) + 1;
}

static __attribute__((noinline)) int with_alloca(int depth)
{
	volatile char *p = alloca((size_t)(depth * 37 % 500) + 1);

	p[0] = (char)depth;
	allocate(8);
	return depth ? with_alloca(depth - 1) + p[0] : p[0];
}

/* The compiler realigns the stack of a function that holds a variable with such an alignment; with
 * alloca in it besides, its CFA is behind a pointer. */
static __attribute__((noinline)) int realigned(int depth)
{
	_Alignas(64) volatile char aligned[64];
	volatile char *p = alloca((size_t)depth * 16 + 16);

	aligned[0] = (char)depth;
	p[0] = aligned[0];
	allocate(16);
	return depth ? realigned(depth - 1) + p[0] : aligned[0];
}

static int compare(const void *a, const void *b)
{
	allocate(24);
	return *(const int *)a - *(const int *)b;
}

static __attribute__((noinline)) void callbacks(void)
{
	int values[] = { 5, 3, 9, 1, 7 };

	qsort(values, 5, sizeof(values[0]), compare);
	allocate((size_t)values[0]);
}

static void handler(int number)
{
	(void)number;
	allocate(32);
	recurse(8);
}

static __attribute__((noinline)) void signals(int on_other_stack)
{
	struct sigaction action = { .sa_handler = handler,
				    .sa_flags = on_other_stack ? SA_ONSTACK : 0 };
	stack_t other = { .ss_sp = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
			  .ss_size = 1 << 16 };
	stack_t none = { .ss_flags = SS_DISABLE };

	sigaltstack(&other, NULL);
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
	sigaltstack(&none, NULL);
	munmap(other.ss_sp, 1 << 16);
	allocate(1);
}

static ucontext_t main_context, coroutine_context;

static void coroutine(void)
{
	for (int i = 0; i < 4; i++) {
		recurse(20);
		swapcontext(&coroutine_context, &main_context);
	}
}

static __attribute__((noinline)) void coroutines(void)
{
	size_t size = 1 << 17;
	void *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	getcontext(&coroutine_context);
	coroutine_context.uc_stack.ss_sp = stack;
	coroutine_context.uc_stack.ss_size = size;
	coroutine_context.uc_link = NULL;
	makecontext(&coroutine_context, coroutine, 0);
	for (int i = 0; i < 4; i++) {
		swapcontext(&main_context, &coroutine_context);
		allocate(2);
	}
	munmap(stack, size);
}

static void *thread_main(void *arg)
{
	recurse((int)(intptr_t)arg);
	with_alloca(10);
	callbacks();
	return NULL;
}

static __attribute__((noinline)) void threads(void)
{
	pthread_t t[4];

	for (intptr_t i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, thread_main, (void *)(i * 50));
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
}

static void say(const char *what)
{
	static unsigned long before;

	printf("%s=%lu\n", what, made - before);
	before = made;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 1;

	while (rounds-- > 0) {
		recurse(700);
		say("recursion");
		recurse(5000);
		say("deep_recursion");
		with_alloca(60);
		say("alloca");
		realigned(30);
		say("realigned");
		callbacks();
		say("callbacks");
		signals(0);
		say("signals");
		signals(1);
		say("signals_other_stack");
		coroutines();
		say("coroutines");
		threads();
		say("threads");
	}
	return 0;
}
