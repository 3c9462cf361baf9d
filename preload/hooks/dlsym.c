/*
 * dlsym, interposed for one purpose: programs find the CUDA driver's functions with it. Everything
 * else leaves by a jump, so that the real dlsym sees its caller's return address and not ours:
 * RTLD_NEXT and RTLD_DEFAULT depend on who asks. Only a look-up by handle of a name that begins
 * with "cu" makes a call, and it is answered with ours only if the real answer lies in libcuda.
 *
 * dlvsym is left alone: nobody finds CUDA by it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <string.h>

#include "core/config.h"
#include "core/guard.h"
#include "hooks/cuda.h"

#if !defined(__x86_64__)
#error "dlsym needs a pass-through for this processor"
#endif

void *(*mt_dlsym_real)(void *, const char *);

/* dlsym has two versions, of which every C library for this processor has the older one. */
static __attribute__((used)) void dlsym_resolve(void)
{
	void *p = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");

	if (!p)
		p = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
	*(void **)&mt_dlsym_real = p;
}

static __attribute__((used)) void *dlsym_by_handle(void *handle, const char *name)
{
	void *found = mt_dlsym_real(handle, name);

	return found && mt_config.gpu ? mt_cuda_found(handle, name, found) : found;
}

/* rdi handle, rsi name. The stack is as the caller left it whenever the real one is jumped to. */
__asm__(".text\n"
	".globl dlsym\n"
	".type dlsym, @function\n"
	"dlsym:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	movq mt_dlsym_real(%rip), %rax\n"
	"	testq %rax, %rax\n"
	"	jz 3f\n"
	"1:	leaq 1(%rdi), %rdx\n" /* RTLD_NEXT -1, RTLD_DEFAULT 0: below 2 */
	"	cmpq $1, %rdx\n"
	"	jbe 2f\n"
	"	testq %rsi, %rsi\n"
	"	jz 2f\n"
	"	cmpb $99, (%rsi)\n" /* c */
	"	jne 2f\n"
	"	cmpb $117, 1(%rsi)\n" /* u */
	"	jne 2f\n"
	"	jmp dlsym_by_handle\n"
	"2:	jmp *%rax\n"
	"3:	pushq %rdi\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	pushq %rsi\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	subq $8, %rsp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	call dlsym_resolve\n"
	"	addq $8, %rsp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	popq %rsi\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	popq %rdi\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	movq mt_dlsym_real(%rip), %rax\n"
	"	testq %rax, %rax\n"
	"	jnz 1b\n"
	"	ret\n" /* no dlsym behind us: NULL */
	"	.cfi_endproc\n"
	".size dlsym, .-dlsym\n");
