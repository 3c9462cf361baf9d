// Code made at run time whose unwind information is registered with the unwinder, as compilers of
// LLVM's kind do: allocates below such code, throws an exception through it, and takes it all back.
// Prints what was caught. The code does something after its call, so that it is no mere way out.
//
// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" void __register_frame(void *frames);
extern "C" void __deregister_frame(void *frames);

namespace
{

struct Thrown {
	int value;
};

void *volatile kept[100];

extern "C" __attribute__((noinline)) int below_registered_code(int i)
{
	kept[i % 100] = malloc(300000 + size_t(i % 100));
	if (i >= 100)
		throw Thrown{ i };
	return i;
}

// int made(int (*call)(int), int i) { return call(i) + 1; }
const uint8_t kCode[] = { 0x55, 0x48, 0x89, 0xe5, /* push rbp; mov rbp, rsp */
			  0x48, 0x89, 0xf8, 0x89, 0xf7, 0xff, 0xd0, /* rax = rdi; edi = esi; call */
			  0x83, 0xc0, 0x01, 0x5d, 0xc3 }; /* add eax, 1; pop rbp; ret */

uint8_t *put(uint8_t *at, uint64_t value, size_t bytes)
{
	memcpy(at, &value, bytes);
	return at + bytes;
}

void describe(uint8_t *frames, const void *code)
{
	const uint8_t common[] = { 1, 'z', 'R', 0, 1, 0x78, 16, 1, 0, 0x0c, 7, 8, 0x90, 1, 0, 0 };
	const uint8_t own[] = { 0, 0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0, 0, 0 };
	uint8_t *at = put(frames, sizeof(common) + 4, 4);

	at = put(at, 0, 4);
	memcpy(at, common, sizeof(common));
	at += sizeof(common);
	at = put(at, 4 + 16 + sizeof(own), 4);
	at = put(at, uint64_t(at - frames), 4);
	at = put(at, reinterpret_cast<uintptr_t>(code), 8);
	at = put(at, sizeof(kCode), 8);
	memcpy(at, own, sizeof(own));
	put(at + sizeof(own), 0, 4);
}

using Made = int (*)(int (*)(int), int);

int run(Made made, int i)
{
	try {
		return made(below_registered_code, i);
	} catch (const Thrown &t) {
		return -t.value;
	}
}

} // namespace

int main()
{
	static uint8_t frames[128];
	void *code = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long sum = 0;

	if (code == MAP_FAILED)
		return 2;
	memcpy(code, kCode, sizeof(kCode));
	describe(frames, code);
	__register_frame(frames);
	for (int i = 0; i < 200; i++)
		sum += run(reinterpret_cast<Made>(code), i);
	__deregister_frame(frames);
	printf("%ld\n", sum);
	return 0;
}
