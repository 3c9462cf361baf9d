// What the driver says against recording a program, from the file that the kernel would execute.
// SPDX-License-Identifier: Apache-2.0
#include <elf.h>
#include <errno.h>
#include <gtest/gtest.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "support/harness.h"

extern "C" {
#include "control/control.h"
}

using memtrace_test::TempDir;
using memtrace_test::WriteAll;

namespace {

std::string Why(const std::string &path)
{
	const char *why = why_not_traced(path.c_str());

	return why ? why : "";
}

/* An ELF file with one program header of this type, and `loader` as what it points to. */
std::string Elf(uint32_t type, const std::string &loader, uint16_t machine, int elf_class)
{
	Elf64_Ehdr e = {};
	Elf64_Phdr p = {};

	memcpy(e.e_ident, ELFMAG, SELFMAG);
	e.e_ident[EI_CLASS] = (unsigned char)elf_class;
	e.e_ident[EI_DATA] = ELFDATA2LSB;
	e.e_type = ET_DYN;
	e.e_machine = machine;
	e.e_phoff = sizeof(e);
	e.e_phnum = 1;
	p.p_type = type;
	p.p_offset = sizeof(e) + sizeof(p);
	p.p_filesz = loader.size() + 1;
	return std::string((char *)&e, sizeof(e)) + std::string((char *)&p, sizeof(p)) + loader +
	       std::string(1, '\0');
}

uint16_t OwnMachine()
{
	Elf64_Ehdr e;
	std::string self = memtrace_test::ReadAll("/proc/self/exe");

	memcpy(&e, self.data(), sizeof(e));
	return e.e_machine;
}

const char *const glibc = "/lib64/ld-linux-x86-64.so.2";

} // namespace

TEST(Verdict, OrdinaryProgramsAndScriptsPass)
{
	TempDir dir;

	EXPECT_EQ(Why("/proc/self/exe"), "");
	EXPECT_EQ(Why("/bin/sh"), "");
	WriteAll(dir.File("s"), "#!/bin/sh -e\nexit 0\n");
	EXPECT_EQ(Why(dir.File("s")), "");
	WriteAll(dir.File("plain"), "echo no interpreter named\n");
	EXPECT_EQ(Why(dir.File("plain")), "");
	EXPECT_EQ(Why(dir.File("missing")), "");
}

TEST(Verdict, StaticForeignAndMuslProgramsDoNot)
{
	TempDir dir;

	WriteAll(dir.File("dynamic"), Elf(PT_INTERP, glibc, OwnMachine(), ELFCLASS64));
	EXPECT_EQ(Why(dir.File("dynamic")), "");
	WriteAll(dir.File("static"), Elf(PT_LOAD, "", OwnMachine(), ELFCLASS64));
	EXPECT_NE(Why(dir.File("static")).find("statically linked"), std::string::npos);
	WriteAll(dir.File("foreign"), Elf(PT_INTERP, glibc, EM_S390, ELFCLASS64));
	EXPECT_NE(Why(dir.File("foreign")).find("architecture"), std::string::npos);
	WriteAll(dir.File("narrow"), Elf(PT_INTERP, glibc, OwnMachine(), ELFCLASS32));
	EXPECT_NE(Why(dir.File("narrow")).find("architecture"), std::string::npos);
	WriteAll(dir.File("musl"), Elf(PT_INTERP, "/lib/ld-musl-x86_64.so.1", OwnMachine(), ELFCLASS64));
	EXPECT_NE(Why(dir.File("musl")).find("musl"), std::string::npos);
	/* The loader itself, started as a program, has none but obeys LD_PRELOAD. */
	WriteAll(dir.File("ld-linux-x86-64.so.2"), Elf(PT_LOAD, "", OwnMachine(), ELFCLASS64));
	EXPECT_EQ(Why(dir.File("ld-linux-x86-64.so.2")), "");
}

TEST(Verdict, ScriptsAreLookedThrough)
{
	TempDir dir;

	WriteAll(dir.File("static"), Elf(PT_LOAD, "", OwnMachine(), ELFCLASS64));
	ASSERT_EQ(chmod(dir.File("static").c_str(), 0755), 0);
	WriteAll(dir.File("one"), "#!" + dir.File("static") + "\n");
	EXPECT_NE(Why(dir.File("one")).find("static"), std::string::npos);
	WriteAll(dir.File("two"), "#! " + dir.File("one") + " -x\nrest\n");
	EXPECT_NE(Why(dir.File("two")).find("static"), std::string::npos);
	WriteAll(dir.File("env"), "#!/usr/bin/env -S A=1 " + dir.File("static") + " -u\n");
	EXPECT_NE(Why(dir.File("env")).find("static"), std::string::npos);
	WriteAll(dir.File("loop"), "#!" + dir.File("loop") + "\n");
	EXPECT_EQ(Why(dir.File("loop")), "");
}

TEST(Verdict, SetuidOfAnotherUserIsRefusedButNotAScript)
{
	TempDir dir;

	if (geteuid() != 0)
		GTEST_SKIP() << "only root can make a setuid program of another user";
	WriteAll(dir.File("program"), Elf(PT_INTERP, glibc, OwnMachine(), ELFCLASS64));
	WriteAll(dir.File("script"), "#!/bin/sh\n");
	for (const char *name : { "program", "script" }) {
		ASSERT_EQ(chown(dir.File(name).c_str(), 65534, 65534), 0);
		ASSERT_EQ(chmod(dir.File(name).c_str(), 04755), 0);
	}
	EXPECT_NE(Why(dir.File("program")).find("setuid"), std::string::npos);
	EXPECT_EQ(Why(dir.File("script")), "") << "the kernel ignores the bit on scripts";
}

TEST(FindProgram, AsTheShellWould)
{
	TempDir dir;
	std::string path = getenv("PATH"), first = dir.File("a"), second = dir.File("b");
	char out[PATH_MAX];

	ASSERT_EQ(mkdir(first.c_str(), 0755) | mkdir(second.c_str(), 0755), 0);
	WriteAll(first + "/tool", "x");
	WriteAll(second + "/tool", "x");
	setenv("PATH", (first + ":" + second).c_str(), 1);
	EXPECT_EQ(find_program("tool", out, sizeof(out)), EACCES);
	chmod((second + "/tool").c_str(), 0755);
	EXPECT_EQ(find_program("tool", out, sizeof(out)), 0);
	EXPECT_EQ(out, second + "/tool");
	chmod((first + "/tool").c_str(), 0755);
	EXPECT_EQ(find_program("tool", out, sizeof(out)), 0);
	EXPECT_EQ(out, first + "/tool");
	EXPECT_EQ(find_program("no-such-tool", out, sizeof(out)), ENOENT);
	EXPECT_EQ(find_program("", out, sizeof(out)), ENOENT);
	EXPECT_EQ(find_program(first.c_str(), out, sizeof(out)), EACCES) << "a folder";
	setenv("PATH", path.c_str(), 1);
}
