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

extern "C" {
#include "stack/epilogue.h"
}

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

/* A frame pointer register with a small number in it: the page at 0 is asked for like any other. */
TEST_F(NativeLimits, FirstPageIsNoStack)
{
	struct mt_bounds b = {};
	uintptr_t word;

	EXPECT_EQ(mt_bounds_load(&b, 0, &word), -1);
	EXPECT_EQ(mt_bounds_load(&b, 16, &word), -1);
	EXPECT_EQ(mt_bounds_readable(0, 8), 0);
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
	/* sub $8, %rsp; call *%rdi; lea 8(%rsp), %rsp; ret */
	const uint8_t body[] = { 0x48, 0x83, 0xec, 8,	 0xff, 0xd7,
				 0x48, 0x8d, 0x64, 0x24, 8,    0xc3 };
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

struct Stub {
	std::vector<uint8_t> body;
	size_t after_call; /* 0: not decodable, or not what follows a call */
};

/* Each saves what it must of rbp and calls *%rdi; ends differ. */
const Stub stubs[] = {
	{ { 0x48, 0x83, 0xec, 8, 0xff, 0xd7, 0x48, 0x83, 0xc4, 8, 0xc3 }, 6 },
	{ { 0x48, 0x81, 0xec, 8, 1, 0, 0, 0xff, 0xd7, 0x48, 0x81, 0xc4, 8, 1, 0, 0, 0xc3 }, 9 },
	/* push %rbp; push %rbx; push %r12; xor %ebp, %ebp; call; pop them */
	{ { 0x55, 0x53, 0x41, 0x54, 0x31, 0xed, 0xff, 0xd7, 0x41, 0x5c, 0x5b, 0x5d, 0xc3 }, 8 },
	/* push %rbp; mov %rsp, %rbp; sub $16, %rsp; call; vzeroupper; leave; ret */
	{ { 0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 16, 0xff, 0xd7, 0xc5, 0xf8, 0x77, 0xc9, 0xc3 },
	  10 },
};

__attribute__((noinline)) Addresses through(Sink *sink, const void *code)
{
	reinterpret_cast<void (*)(void (*)())>(reinterpret_cast<uintptr_t>(code))(called_back);
	sink->drain();
	return Dictionary::all().addresses(last_node);
}

/* Code that is another one each time, at the same place: what was true of the last is forgotten. */
TEST_F(NativeLimits, CodeThatOnlyTakesItsFrameDownIsWalkedThrough)
{
	auto *code = static_cast<uint8_t *>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
						 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	Addresses first, a;

	if (code == MAP_FAILED)
		GTEST_SKIP() << "no memory that is writable and executable here";
	current = sink.get();
	for (int i = 0; i < 12; i++) {
		const Stub &stub = stubs[size_t(i) % (sizeof(stubs) / sizeof(stubs[0]))];
		uint8_t *at = code + 64 - stub.after_call; /* one return address for all */

		memcpy(at, stub.body.data(), stub.body.size());
		a = through(sink.get(), at);
		if (first.empty())
			first = a;
		ASSERT_GT(a.size(), 8u) << i;
		EXPECT_EQ(a[0], uintptr_t(code) + 64);
		EXPECT_EQ(a, first) << i << text(a);
		EXPECT_GE(a.back(), 16u) << "a pseudo frame at the end";
	}
	munmap(code, 4096);
}

TEST(EpilogueRules, OnlyAfterACallAndOnlyToTheReturn)
{
	struct {
		std::vector<uint8_t> code; /* from 7 bytes before the return address on */
		int known;
	} cases[] = {
		{ { 0, 0, 0, 0, 0, 0xff, 0xd0, 0xc3 }, 1 },
		{ { 0, 0, 0xe8, 1, 2, 3, 4, 0xc3 }, 1 },
		{ { 0, 0, 0, 0, 0, 0, 0, 0xc3 }, 0 }, /* no call */
		{ { 0, 0, 0, 0, 0, 0xff, 0xd0, 0x48, 0x83, 0xc4 }, 0 }, /* the page ends */
		{ { 0, 0, 0, 0, 0, 0xff, 0xd0, 0x5c, 0xc3 }, 0 }, /* pop %rsp */
		{ { 0, 0, 0, 0, 0, 0xff, 0xd0, 0x5d, 0xc9, 0xc3 }, 0 }, /* leave by a new %rbp */
		{ { 0, 0, 0, 0, 0, 0xff, 0xd0, 0x48, 0x83, 0xc4, 0xf8, 0xc3 }, 0 }, /* downwards */
		{ { 0, 0, 0, 0, 0, 0xff, 0xd0, 0x48, 0x83, 0xc4, 4, 0xc3 }, 0 }, /* not in words */
		{ { 0, 0, 0, 0, 0, 0xff, 0xd0, 0x0f, 0x0b }, 0 }, /* ud2 */
	};

	for (const auto &c : cases) {
		std::vector<uint8_t> code = c.code;

		EXPECT_EQ(mt_epilogue_rule(code.data() + 7, 7, uint32_t(code.size()) - 7) !=
				  MT_RULE_NOINFO,
			  c.known != 0)
			<< &c - cases;
	}
	std::vector<uint8_t> nops(200, 0x90);

	nops[5] = 0xff;
	nops[6] = 0xd0;
	EXPECT_EQ(mt_epilogue_rule(nops.data() + 7, 7, 193), uint64_t(MT_RULE_NOINFO));
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
