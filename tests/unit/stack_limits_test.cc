/*
 * preload/stack/native.c and modules.c where stacks are too deep, not stacks at all, in code that
 * nobody described, or in modules that come and go.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "stack_referee.h"

namespace
{

using namespace referee;

class NativeLimits : public NativeStacksBase
{
};

Sink *current;

__attribute__((noinline)) void recurse(Sink *sink, int depth)
{
	check(sink);
	if (depth)
		recurse(sink, depth - 1);
	BARRIER();
}

/* ---- too deep, and nonsense ---- */

Addresses here;

__attribute__((noinline)) void record_here(Sink *sink)
{
	struct mt_caller caller = MT_CALLER();
	GccWalk gcc = { caller.slot + 8, {} };
	uint32_t node = mt_stack_native(&sink->t, caller);

	sink->drain();
	_Unwind_Backtrace(gcc_frame, &gcc);
	here = Dictionary::all().addresses(node);
	/* Both ends of what the referee saw, with the mark in between. */
	if (gcc.out.size() > mt_native_depth) {
		size_t outer = mt_native_depth / 2, inner = mt_native_depth - outer;

		ASSERT_EQ(here.size(), mt_native_depth + 1);
		EXPECT_EQ(here[inner], uint64_t(MT_FRAME_TRUNCATED));
		EXPECT_TRUE(std::equal(here.begin(), here.begin() + long(inner), gcc.out.begin()));
		EXPECT_TRUE(
			std::equal(here.rbegin(), here.rbegin() + long(outer), gcc.out.rbegin()));
	} else {
		EXPECT_EQ(here, gcc.out);
	}
}

__attribute__((noinline)) void record_deep(Sink *sink, int depth)
{
	record_here(sink);
	if (depth)
		record_deep(sink, depth - 1);
	record_here(sink);
}

TEST_F(NativeLimits, DeepStacksKeepBothEnds)
{
	const unsigned depths[] = { 2, 3, 16, 33, 1024 };
	unsigned before = mt_native_depth;

	for (unsigned depth : depths) {
		Sink own;

		mt_native_depth = depth;
		record_deep(&own, depth == 1024 ? 1200 : 60);
	}
	mt_native_depth = before;
}

__attribute__((noinline)) uint32_t endless(Sink *sink, int depth)
{
	uint32_t node = depth ? endless(sink, depth - 1) : mt_stack_native(&sink->t, MT_CALLER());

	BARRIER();
	return node;
}

TEST_F(NativeLimits, EndlessRecursionIsCutWhereItIsKnown)
{
	uint32_t node = endless(sink.get(), 30000);
	Addresses a;

	sink->drain();
	a = Dictionary::all().addresses(node);
	ASSERT_FALSE(a.empty());
	EXPECT_EQ(a.back(), uint64_t(MT_FRAME_TRUNCATED));
	EXPECT_EQ(a.size(), mt_native_depth - mt_native_depth / 2 + 1);
}

TEST_F(NativeLimits, NonsenseOnTheStackEndsTheWalk)
{
	alignas(16) uintptr_t fake[64] = {};
	std::mt19937_64 random(11);
	uintptr_t code = uintptr_t(&recurse);
	Addresses a;

	for (int i = 0; i < 20000; i++) {
		for (uintptr_t &word : fake)
			switch (random() % 4) {
			case 0:
				word = random();
				break;
			case 1:
				word = uintptr_t(&fake[random() % 64]);
				break;
			case 2:
				word = code + random() % 65536;
				break;
			default:
				word = 0;
			}
		fake[0] = code + random() % 4096;
		uint32_t node = mt_stack_native(
			&sink->t,
			{ uintptr_t(&fake[0]), random() % 2 ? random() : uintptr_t(&fake[8]) });
		ASSERT_NE(node, 0u);
	}
	sink->drain();
	check(sink.get());
}

uint32_t last_node;

void called_back()
{
	last_node = mt_stack_native(&current->t, MT_CALLER());
}

TEST_F(NativeLimits, CodeOutsideAllModulesIsSaidToBeUnknown)
{
	auto *code = static_cast<uint8_t *>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
						 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	/* sub $8, %rsp; call *%rdi; add $8, %rsp; ret */
	const uint8_t body[] = { 0x48, 0x83, 0xec, 8, 0xff, 0xd7, 0x48, 0x83, 0xc4, 8, 0xc3 };
	Addresses a;

	if (code == MAP_FAILED)
		GTEST_SKIP() << "no memory that is writable and executable here";
	memcpy(code, body, sizeof(body));
	current = sink.get();
	for (int i = 0; i < 3; i++) {
		reinterpret_cast<void (*)(void (*)())>(code)(called_back);
		sink->drain();
		a = Dictionary::all().addresses(last_node);
		ASSERT_EQ(a.size(), 2u);
		EXPECT_EQ(a[0], uintptr_t(code) + 6);
		EXPECT_EQ(a[1], uint64_t(MT_FRAME_NO_UNWIND_INFO));
	}
	munmap(code, 4096);
}

/* ---- plugins that come and go ---- */

class Plugin
{
      public:
	explicit Plugin(const char *name)
	    : lib_(dlopen((std::string(MT_BUILD_DIR "/programs/") + name).c_str(), RTLD_NOW))
	{
	}
	void close(Sink *sink)
	{
		mt_stack_unload_begin();
		dlclose(lib_);
		mt_stack_unload_end(&sink->t);
		sink->drain();
	}
	explicit operator bool() const
	{
		return lib_ != nullptr;
	}
	void call(int depth, void (*callback)(void *), void *data) const
	{
		auto *f = reinterpret_cast<void (*)(int, void (*)(void *), void *)>(
			dlsym(lib_, "stack_plugin"));

		f(depth, callback, data);
	}

      private:
	void *lib_;
};

TEST_F(NativeLimits, AnotherPluginAtTheSameAddress)
{
	const char *names[] = { "stack_plugin_a.so", "stack_plugin_b.so" };
	uint32_t known = 0;

	libunwind_is_fresh = false;
	for (int i = 0; i < 40; i++) {
		Plugin plugin(names[i % 2]);
		size_t gone;

		if (!plugin)
			GTEST_SKIP() << "make programs builds the plugins";
		plugin.call(
			i % 7, [](void *s) { check(static_cast<Sink *>(s)); }, sink.get());
		gone = Dictionary::all().gone.size();
		plugin.close(sink.get());
		EXPECT_EQ(Dictionary::all().gone.size(), gone + 1);
		if (i == 14)
			known = mt_rules_count();
	}
	EXPECT_EQ(mt_rules_count(), known) << "reloads must not fill the tables";
	EXPECT_GT(compared, 300u);
}

void run_on_scan()
{
	Sink own;

	mt_modules_force_scan = 1;
	libunwind_is_fresh = false;
	init_once();
	compared = 0;
	recurse(&own, 40);
	for (int i = 0; i < 4; i++) {
		Plugin plugin(i % 2 ? "stack_plugin_a.so" : "stack_plugin_b.so");

		if (!plugin)
			break;
		plugin.call(
			3, [](void *s) { check(static_cast<Sink *>(s)); }, &own);
		plugin.close(&own);
	}
	_exit(::testing::Test::HasFailure() ? 1 : compared > 300 ? 0 : 2);
}

TEST(NativeLimitsDeathTest, WithoutLockFreeLookup)
{
	GTEST_FLAG_SET(death_test_style, "threadsafe");
	EXPECT_EXIT(run_on_scan(), ::testing::ExitedWithCode(0), "");
}

} // namespace
