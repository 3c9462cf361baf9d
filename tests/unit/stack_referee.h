/*
 * Other unwinders, and the check that ours finds what they find on the same stack.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_STACK_REFEREE_H
#define MEMTRACE_TESTS_STACK_REFEREE_H

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unwind.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "stack_sink.h"

extern "C" {
#include "stack/modules.h"
#include "stack/native.h"
#include "stack/stack.h"
}

namespace referee
{

using Addresses = std::vector<uint64_t>;

/* ---- referees ---- */

struct GccWalk {
	uintptr_t from;
	Addresses out;
};

inline _Unwind_Reason_Code gcc_frame(_Unwind_Context *context, void *data)
{
	auto *w = static_cast<GccWalk *>(data);

	/* What it calls the CFA of a frame is the stack pointer in that frame. */
	if (w->out.empty() && _Unwind_GetCFA(context) != w->from)
		return _URC_NO_REASON;
	if (_Unwind_GetIP(context))
		w->out.push_back(_Unwind_GetIP(context));
	return _URC_NO_REASON;
}

/* libunwind's local interface without its header: contexts are opaque and smaller than this. */
struct Libunwind {
	int (*getcontext)(void *) = nullptr;
	int (*init)(void *, void *) = nullptr;
	int (*step)(void *) = nullptr;
	int (*get)(void *, int, uint64_t *) = nullptr;

	Libunwind()
	{
		void *lib = dlopen("libunwind.so.8", RTLD_NOW | RTLD_LOCAL);

		if (!lib)
			return;
		getcontext = reinterpret_cast<int (*)(void *)>(dlsym(lib, "_Ux86_64_getcontext"));
		init = reinterpret_cast<int (*)(void *, void *)>(
			dlsym(lib, "_ULx86_64_init_local"));
		step = reinterpret_cast<int (*)(void *)>(dlsym(lib, "_ULx86_64_step"));
		get = reinterpret_cast<int (*)(void *, int, uint64_t *)>(
			dlsym(lib, "_ULx86_64_get_reg"));
	}
	static const Libunwind &instance()
	{
		static Libunwind u;
		return u;
	}
};

inline __attribute__((noinline)) Addresses libunwind_walk(uintptr_t from)
{
	const Libunwind &u = Libunwind::instance();
	alignas(16) static thread_local char context[4096], cursor[4096];
	Addresses out;
	uint64_t ip = 0, sp = 0;

	if (!u.getcontext || u.getcontext(context) || u.init(cursor, context))
		return out;
	do {
		u.get(cursor, 16, &ip);
		u.get(cursor, 7, &sp);
		if (!out.empty() || sp == from)
			if (ip)
				out.push_back(ip);
	} while (u.step(cursor) > 0);
	return out;
}

/* ---- the check ---- */

inline std::atomic<size_t> compared{ 0 };

inline std::string text(const Addresses &a)
{
	std::string s;
	char one[32];

	for (uint64_t v : a) {
		snprintf(one, sizeof(one), " %lx", static_cast<unsigned long>(v));
		s += one;
	}
	return s;
}

/* Pseudo frames at the outer end stand for what no unwinder knows. */
inline Addresses without_end(Addresses a)
{
	if (!a.empty() && a.back() < 16)
		a.pop_back();
	return a;
}

inline void init_once()
{
	static Sink sink;
	static bool done = (mt_stack_init(&sink.t, MT_DEPTH_MAX, 0, 0), true);

	(void)done;
	sink.drain();
}

/* Threads fill the dictionary under this. */
inline std::mutex dictionary;

/* libunwind keeps what it learnt of a module that was unloaded, also when another takes its place.
 */
inline bool libunwind_is_fresh = true;

inline __attribute__((noinline)) void check(Sink *sink)
{
	struct mt_caller caller = MT_CALLER();
	std::lock_guard<std::mutex> lock(dictionary);
	GccWalk gcc = { caller.slot + 8, {} };
	Addresses ours, theirs;
	uint32_t node = mt_stack_native(&sink->t, caller);
	uint32_t full = mt_native_walk(static_cast<mt_native_cache *>(sink->t.native_cache),
				       &sink->t, caller.slot, caller.rbp);

	sink->drain();
	ASSERT_NE(node, 0u);
	ASSERT_EQ(Dictionary::all().addresses(node), Dictionary::all().addresses(full));
	ours = without_end(Dictionary::all().addresses(node));
	_Unwind_Backtrace(gcc_frame, &gcc);
	if (ours != gcc.out)
		FAIL() << "ours  " << text(ours) << "\nlibgcc" << text(gcc.out);
	if (libunwind_is_fresh)
		theirs = libunwind_walk(caller.slot + 8);
	if (!theirs.empty() && ours != theirs)
		FAIL() << "ours     " << text(ours) << "\nlibunwind" << text(theirs);
	compared += ours.size();
}

/* The handlers here allocate, which is safe where they are raised, but not for that sanitizer. */
#ifdef __SANITIZE_THREAD__
constexpr bool kSignals = false;
#else
constexpr bool kSignals = true;
#endif

class NativeStacksBase : public ::testing::Test
{
      protected:
	void SetUp() override
	{
		init_once();
		compared = 0;
		sink = std::make_unique<Sink>();
	}
	std::unique_ptr<Sink> sink;
};

} // namespace referee

/* Keeps a call from becoming a jump. */
#define BARRIER() __asm__ volatile("" ::: "memory")

#endif
