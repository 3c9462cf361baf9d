// Names of addresses: in this very program, and in a library made on the spot.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "own_module.h"
#include "symbols/program.h"
#include "symbols/symbolizer.h"

namespace
{

void *volatile sink;

__attribute__((always_inline)) inline void *inlined_here(void)
{
	void *here;

	asm volatile("lea 0(%%rip), %0" : "=r"(here)); // the address after it is still inlined
	sink = here;
	return here;
}
const unsigned int inlined_line = __LINE__ - 4;

__attribute__((noinline)) void *outer_function(int)
{
	return inlined_here();
}
const unsigned int call_line = __LINE__ - 2;

class Symbolizer : public testing::Test
{
      protected:
	void TearDown() override
	{
		symbolizer_free(s);
	}

	symbolizer *make(bool off = false, const char *sysroot = nullptr)
	{
		symbolizer_options options = { off, sysroot };

		s = symbolizer_new(&options);
		return s;
	}

	symbol_module module() const
	{
		return { own.path.c_str(), own.build_id.data(),
			 static_cast<uint32_t>(own.build_id.size()) };
	}

	OwnModule own;
	symbolizer *s = nullptr;
};

std::string file_name(const char *path)
{
	std::string s = path ? path : "";

	return s.substr(s.rfind('/') + 1);
}

} // namespace

TEST_F(Symbolizer, InlinedFunctionsAreShownInnermostFirstEachWithItsLine)
{
	symbol_module m = module();
	symbol_frames f = symbolizer_native(make(), &m, own.address(outer_function(1)), false);

	ASSERT_EQ(own.build_id.size(), 20u);
	ASSERT_EQ(f.count, 2u);
	EXPECT_NE(std::string(f.frames[0].function).find("inlined_here"), std::string::npos);
	EXPECT_TRUE(f.frames[0].inlined);
	EXPECT_EQ(f.frames[0].line, inlined_line);
	EXPECT_NE(std::string(f.frames[1].function).find("outer_function(int)"), std::string::npos);
	EXPECT_FALSE(f.frames[1].inlined);
	EXPECT_EQ(f.frames[1].line, call_line);
	EXPECT_EQ(file_name(f.frames[1].file), "symbols_symbolizer_test.cc");
	EXPECT_EQ(f.frames[1].module, own.path);
	EXPECT_EQ(symbolizer_note(s, 0), nullptr);
}

TEST_F(Symbolizer, AReturnAddressIsLookedUpInsideTheCall)
{
	symbol_module m = module();
	uint64_t start = own.address(outer_function);

	auto is_outer = [&](uint64_t address, bool interrupted) {
		symbol_frames f = symbolizer_native(s, &m, address, interrupted);
		std::string name = f.frames[f.count - 1].function;

		return name.find("outer_function") != std::string::npos;
	};

	make();
	EXPECT_TRUE(is_outer(start, true));
	EXPECT_FALSE(is_outer(start, false));
	EXPECT_TRUE(is_outer(start + 1, false));
}

TEST_F(Symbolizer, AnotherBuildIdMeansOffsetsAndANote)
{
	symbol_module m = module();
	symbol_frames f;

	own.build_id[3] ^= 1;
	f = symbolizer_native(make(), &m, 0x1234, false);
	ASSERT_EQ(f.count, 1u);
	EXPECT_EQ(std::string(f.frames[0].function), file_name(own.path.c_str()) + "+0x1234");
	EXPECT_EQ(f.frames[0].raw, nullptr);
	EXPECT_EQ(f.frames[0].line, 0u);
	symbolizer_native(s, &m, 0x5678, false);
	ASSERT_NE(symbolizer_note(s, 0), nullptr);
	EXPECT_NE(std::string(symbolizer_note(s, 0)).find("another build-id"), std::string::npos);
	EXPECT_EQ(symbolizer_note(s, 1), nullptr); // once per file
}

TEST_F(Symbolizer, AMissingFileMeansOffsetsAndANote)
{
	symbol_module m = { "/nowhere/libgone.so.1", nullptr, 0 };
	symbol_frames f = symbolizer_native(make(), &m, 0xabc, false);

	EXPECT_STREQ(f.frames[0].function, "libgone.so.1+0xabc");
	EXPECT_STREQ(f.frames[0].module, "/nowhere/libgone.so.1");
	EXPECT_NE(std::string(symbolizer_note(s, 0)).find("is not here"), std::string::npos);
}

TEST_F(Symbolizer, SwitchedOffItLooksAtNoFile)
{
	symbol_module m = module();
	symbol_frames f = symbolizer_native(make(true), &m, own.address(outer_function) + 1, false);

	EXPECT_EQ(std::string(f.frames[0].function).find(file_name(own.path.c_str()) + "+0x"), 0u);
	EXPECT_EQ(symbolizer_note(s, 0), nullptr);
}

TEST_F(Symbolizer, PseudoFramesSayWhyAndOtherAddressesStayNumbers)
{
	make();
	EXPECT_STREQ(symbolizer_pseudo(s, MT_FRAME_TRUNCATED).frames[0].function,
		     "[frames left out]");
	EXPECT_STREQ(symbolizer_pseudo(s, 0x7f0012345678).frames[0].function, "0x7f0012345678");
}

// ---- a library whose debug information lies elsewhere
// ---------------------------------------------

namespace
{

class SplitDebug : public Symbolizer
{
      protected:
	void SetUp() override
	{
		char pattern[] = "/tmp/memtrace-symbols-XXXXXX";

		ASSERT_NE(mkdtemp(pattern), nullptr);
		dir = pattern;
		std::ofstream(dir + "/lib.c")
			<< "int before;\n"
			   "__attribute__((noinline)) static int hidden(int x)\n"
			   "{\n"
			   "\treturn x * before;\n"
			   "}\n"
			   "int visible(int x) { return hidden(x) + 1; }\n";
		ASSERT_TRUE(run("cc -g -O0 -fPIC -shared -Wl,--build-id=0x0123456789abcdef "
				"lib.c -o libsplit.so"));
		address = symbol_address("hidden");
		ASSERT_NE(address, 0u);
	}

	void TearDown() override
	{
		Symbolizer::TearDown();
		run("rm -rf " + dir);
	}

	bool run(const std::string &command) const
	{
		return system(("cd " + dir + " && " + command + " 2>/dev/null").c_str()) == 0;
	}

	uint64_t symbol_address(const std::string &name) const
	{
		FILE *f = popen(("nm " + dir + "/libsplit.so | grep ' " + name + "$'").c_str(),
				"r");
		unsigned long long v = 0;

		if (!f)
			return 0;
		if (fscanf(f, "%llx", &v) != 1)
			v = 0;
		pclose(f);
		return v;
	}

	symbol_frames look_up(const std::string &path, const char *sysroot)
	{
		symbol_module m = { path.c_str(), id, sizeof(id) };

		return symbolizer_native(make(false, sysroot), &m, address + 1, false);
	}

	std::string dir;
	uint64_t address = 0;
	const uint8_t id[8] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef };
};

} // namespace

TEST_F(SplitDebug, OfItsOwn)
{
	symbol_frames f = look_up(dir + "/libsplit.so", nullptr);

	EXPECT_STREQ(f.frames[0].function, "hidden");
	EXPECT_EQ(f.frames[0].line, 3u);
}

TEST_F(SplitDebug, BesideTheFileByDebugLink)
{
	ASSERT_TRUE(run("objcopy --only-keep-debug libsplit.so libsplit.debug && "
			"objcopy -g --strip-all --add-gnu-debuglink=libsplit.debug libsplit.so"));
	symbol_frames f = look_up(dir + "/libsplit.so", nullptr);

	EXPECT_STREQ(f.frames[0].function, "hidden");
	EXPECT_EQ(f.frames[0].line, 3u);
}

TEST_F(SplitDebug, UnderTheSysrootByBuildId)
{
	ASSERT_TRUE(run("mkdir -p root/usr/lib/debug/.build-id/01 root/opt && "
			"objcopy --only-keep-debug libsplit.so "
			"root/usr/lib/debug/.build-id/01/23456789abcdef.debug && "
			"strip --strip-all libsplit.so && mv libsplit.so root/opt/"));
	symbol_frames f = look_up("/opt/libsplit.so", (dir + "/root").c_str());

	EXPECT_STREQ(f.frames[0].function, "hidden");
	EXPECT_EQ(f.frames[0].line, 3u);
}

TEST_F(SplitDebug, DebugFileAloneIsEnough)
{
	ASSERT_TRUE(run("mkdir -p root/usr/lib/debug/.build-id/01 && "
			"objcopy --only-keep-debug libsplit.so "
			"root/usr/lib/debug/.build-id/01/23456789abcdef.debug && rm libsplit.so"));
	symbol_frames f = look_up("/opt/libsplit.so", (dir + "/root").c_str());

	EXPECT_STREQ(f.frames[0].function, "hidden");
	EXPECT_EQ(f.frames[0].line, 3u);
}

TEST_F(SplitDebug, StrippedWithoutAnyTheNextExportIsNotBlamed)
{
	ASSERT_TRUE(run("strip --strip-all libsplit.so"));
	symbol_frames f = look_up(dir + "/libsplit.so", nullptr);

	EXPECT_EQ(std::string(f.frames[0].function).find("libsplit.so+0x"), 0u);
}

// ---- programs that cannot be traced
// ----------------------------------------------------------------

TEST(Program, AnOrdinaryOneIsNotJudged)
{
	OwnModule own;

	EXPECT_EQ(program_kind_of(own.path.c_str(), nullptr), PROGRAM_UNKNOWN);
	EXPECT_EQ(program_kind_of("/nowhere", nullptr), PROGRAM_UNKNOWN);
	EXPECT_EQ(program_kind_of("relative", nullptr), PROGRAM_UNKNOWN);
	EXPECT_EQ(program_kind_of("/dev/null", nullptr), PROGRAM_UNKNOWN);
}

TEST_F(SplitDebug, StaticForeignAndPrivilegedProgramsAreRecognised)
{
	ASSERT_TRUE(run("echo 'int main(void) { return 0; }' > m.c && cc m.c -o dynamic && "
			"cc -static m.c -o static && cp dynamic setuid && chmod u+s setuid && "
			"cp dynamic foreign && printf '\\263' | "
			"dd of=foreign bs=1 seek=18 conv=notrunc status=none"));
	EXPECT_EQ(program_kind_of((dir + "/dynamic").c_str(), nullptr), PROGRAM_UNKNOWN);
	EXPECT_EQ(program_kind_of((dir + "/static").c_str(), nullptr), PROGRAM_STATIC);
	EXPECT_EQ(program_kind_of((dir + "/setuid").c_str(), nullptr), PROGRAM_PRIVILEGED);
	EXPECT_EQ(program_kind_of((dir + "/foreign").c_str(), nullptr), PROGRAM_OTHER_ARCHITECTURE);
	EXPECT_EQ(program_kind_of("/static", dir.c_str()), PROGRAM_STATIC);
}
