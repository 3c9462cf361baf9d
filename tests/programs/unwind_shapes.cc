/*
 * What stack_shapes.c has not: stacks that C++ exceptions, longjmp, stack switches by hand and code
 * made at run time leave and enter, and functions without frame pointers. Allocates from each.
 *
 *	unwind_shapes CASE PLUGIN_A PLUGIN_B      CASE: one of the names in `cases`, or "all"
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <alloca.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <stdexcept>

namespace {

unsigned long made;
void *volatile sink;

__attribute__((noinline)) void Allocate(size_t size)
{
	sink = malloc(size);
	free(sink);
	made++;
}

/* Keeps a call from becoming a jump. */
#define BARRIER() __asm__ volatile("" ::: "memory")

/* ---- exceptions and jumps ---- */

struct Allocating {
	~Allocating() { Allocate(24); }
};

__attribute__((noinline)) void Throw(int depth)
{
	Allocating guard;

	if (depth == 0)
		throw std::runtime_error("out");
	Throw(depth - 1);
	BARRIER();
}

void Exceptions(char **)
{
	for (int depth = 0; depth < 60; depth++) {
		try {
			Throw(depth);
		} catch (const std::runtime_error &) {
			Allocate(40);
		}
		Allocate(48);
	}
}

jmp_buf back;
volatile int leave = 1; /* or the compiler complains that Jump never returns */

__attribute__((noinline)) void Jump(int depth)
{
	volatile char *room = static_cast<char *>(alloca(size_t(depth) * 24 + 1));

	room[0] = 1;
	Allocate(16);
	if (depth)
		Jump(depth - 1);
	else if (leave)
		longjmp(back, 1);
	room[0] = 2;
}

void Jumps(char **)
{
	for (volatile int depth = 0; depth < 40; depth = depth + 1)
		if (!setjmp(back))
			Jump(depth);
		else
			Allocate(32);
}

/* ---- frames ---- */

__attribute__((noinline, optimize("O2", "omit-frame-pointer"))) int Deep(int depth, long a, long b)
{
	long c[8] = { a, b, depth };
	int below;

	__asm__ volatile("" : : "r"(c) : "memory", "rbx", "rbp", "r12", "r13", "r14", "r15");
	if (depth % 16 == 0)
		Allocate(64);
	below = depth ? Deep(depth - 1, b, a + 1) : 0;
	BARRIER();
	return below + int(c[depth & 1]);
}

void WithoutFramePointers(char **)
{
	Deep(90, 1, 2);
	Deep(3000, 1, 2);
}

__attribute__((noinline, optimize("O2"))) int Realigned(int depth, int n)
{
	alignas(64) volatile char aligned[128];
	volatile char *room = static_cast<char *>(alloca(size_t(n) * 8 + 16));

	aligned[0] = room[0] = 1;
	Allocate(16);
	return depth ? Realigned(depth - 1, n + 1) + aligned[0] : room[0];
}

void RealignedFrames(char **)
{
	Realigned(70, 3);
	for (int i = 0; i < 30; i++)
		Realigned(i % 7, i);
}

/* ---- a switch of stacks by hand, as greenlets make it ---- */

extern "C" {
void *unwind_other, *unwind_main;
void unwind_switch(void **from, void *to) __attribute__((visibility("hidden")));
void unwind_start(void) __attribute__((visibility("hidden")));
void unwind_body(void) __attribute__((used));
}
__asm__(".text\n"
	".type unwind_switch, @function\n"
	"unwind_switch:\n"
	".cfi_startproc\n"
	"	push %rbp\n	.cfi_adjust_cfa_offset 8\n	.cfi_rel_offset rbp, 0\n"
	"	push %rbx\n	.cfi_adjust_cfa_offset 8\n"
	"	push %r12\n	.cfi_adjust_cfa_offset 8\n"
	"	push %r13\n	.cfi_adjust_cfa_offset 8\n"
	"	push %r14\n	.cfi_adjust_cfa_offset 8\n"
	"	push %r15\n	.cfi_adjust_cfa_offset 8\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n	.cfi_adjust_cfa_offset -8\n"
	"	pop %r14\n	.cfi_adjust_cfa_offset -8\n"
	"	pop %r13\n	.cfi_adjust_cfa_offset -8\n"
	"	pop %r12\n	.cfi_adjust_cfa_offset -8\n"
	"	pop %rbx\n	.cfi_adjust_cfa_offset -8\n"
	"	pop %rbp\n	.cfi_adjust_cfa_offset -8\n	.cfi_same_value rbp\n"
	"	ret\n"
	".cfi_endproc\n"
	".size unwind_switch, . - unwind_switch\n"
	".type unwind_start, @function\n"
	"unwind_start:\n"
	".cfi_startproc\n"
	".cfi_undefined rip\n"
	"	call unwind_body\n"
	"	hlt\n"
	".cfi_endproc\n"
	".size unwind_start, . - unwind_start\n");

void unwind_body(void)
{
	for (int i = 0;; i++) {
		Deep(17 * i % 50, i, 1);
		Allocate(72);
		unwind_switch(&unwind_other, unwind_main);
	}
}

void Switches(char **)
{
	size_t size = 1 << 17;
	char *stack = static_cast<char *>(
		mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	void **top = reinterpret_cast<void **>(stack + size) - 2;

	top[-1] = reinterpret_cast<void *>(unwind_start);
	unwind_other = top - 7;
	for (int i = 0; i < 20; i++) {
		unwind_switch(&unwind_main, unwind_other);
		Allocate(80);
		Deep(20, 1, 2);
	}
	munmap(stack, size);
}

/* ---- other files at one address ---- */

void FromPlugin(void *) { Allocate(56); }

void Plugins(char **argv)
{
	void *place[2] = { nullptr, nullptr };

	for (int i = 0; i < 20; i++) {
		void *lib = dlopen(argv[i % 2], RTLD_NOW);
		void *plugin = lib ? dlsym(lib, "stack_plugin") : nullptr;

		if (!plugin)
			exit(3);
		place[i % 2] = plugin;
		reinterpret_cast<void (*)(int, void (*)(void *), void *)>(plugin)(5, FromPlugin,
										   nullptr);
		dlclose(lib);
		Allocate(88);
	}
	printf("plugins_at_one_address=%d\n", place[0] == place[1]);
}

/* ---- code made at run time, without unwind information ---- */

extern "C" {
extern const char unwind_stub_begin[], unwind_stub_end[];
extern const char unwind_opaque_begin[], unwind_opaque_end[];
}
__asm__(".section .rodata\n"
	"unwind_stub_begin:\n" /* void stub(void (*call)(size_t), size_t) */
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n"
	"	sub $24, %rsp\n"
	"	call *%rax\n"
	"	add $24, %rsp\n"
	"	ret\n"
	"unwind_stub_end:\n"
	"unwind_opaque_begin:\n" /* the same, left by an instruction that no unwinder guesses */
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n"
	"	sub $24, %rsp\n"
	"	call *%rax\n"
	"	lea 24(%rsp), %rsp\n"
	"	ret\n"
	"unwind_opaque_end:\n"
	".text\n");

void *MakeStub(const char *begin, const char *end)
{
	size_t size = size_t(end - begin);
	void *code = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(code, begin, size);
	mprotect(code, 4096, PROT_READ | PROT_EXEC);
	return code;
}

__attribute__((noinline)) void CallStub(void *stub, int depth)
{
	if (depth)
		CallStub(stub, depth - 1);
	else
		reinterpret_cast<void (*)(void (*)(size_t), size_t)>(stub)(Allocate, 96);
	BARRIER();
}

void CallStubs(const char *begin, const char *end)
{
	void *stub = MakeStub(begin, end);

	for (int i = 0; i < 10; i++)
		CallStub(stub, i);
	munmap(stub, 4096);
}

void Trampolines(char **) { CallStubs(unwind_stub_begin, unwind_stub_end); }

void Unregistered(char **) { CallStubs(unwind_opaque_begin, unwind_opaque_end); }

const struct {
	const char *name;
	void (*run)(char **argv);
} cases[] = {
	{ "exceptions", Exceptions },
	{ "jumps", Jumps },
	{ "no_frame_pointers", WithoutFramePointers },
	{ "realigned", RealignedFrames },
	{ "switches", Switches },
	{ "plugins", Plugins },
	{ "trampolines", Trampolines },
	{ "unregistered", Unregistered },
};

} // namespace

int main(int argc, char **argv)
{
	int found = 0;

	if (argc != 4)
		return 2;
	for (const auto &c : cases) {
		if (strcmp(argv[1], c.name) && strcmp(argv[1], "all"))
			continue;
		found = 1;
		made = 0;
		c.run(argv + 2);
		printf("%s=%lu\n", c.name, made);
	}
	return found ? 0 : 2;
}
