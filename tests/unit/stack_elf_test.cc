/*
 * preload/stack/elf.c and modules.c: what is read of mapped files is what other tools find, and
 * damaged headers do no harm.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <elf.h>
#include <gtest/gtest.h>
#include <link.h>
#include <sys/mman.h>

#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "stack_referee.h"

extern "C" {
#include "stack/elf.h"
}

namespace
{

struct Loaded {
	std::string name;
	mt_elf elf;
};

std::vector<Loaded> loaded()
{
	std::vector<Loaded> out;

	dl_iterate_phdr(
		[](dl_phdr_info *info, size_t, void *data) {
			Loaded l = { info->dlpi_name, {} };

			if (mt_elf_read(&l.elf, info->dlpi_addr, info->dlpi_phdr,
					info->dlpi_phnum) == 0)
				static_cast<std::vector<Loaded> *>(data)->push_back(l);
			return 0;
		},
		&out);
	return out;
}

const Loaded &library(const std::vector<Loaded> &all, const char *part)
{
	for (const Loaded &l : all)
		if (l.name.find(part) != std::string::npos)
			return l;
	throw std::runtime_error(std::string("not loaded: ") + part);
}

/* The build-id note of a file, by way of its section headers: another road than elf.c takes. */
std::string build_id_of_file(const std::string &path)
{
	std::ifstream in(path, std::ios::binary);
	std::string bytes((std::istreambuf_iterator<char>(in)), {});
	Elf64_Ehdr e;

	memcpy(&e, bytes.data(), sizeof(e));
	for (int i = 0; i < e.e_shnum; i++) {
		Elf64_Shdr s, names;
		memcpy(&s, &bytes[e.e_shoff + size_t(i) * sizeof(s)], sizeof(s));
		memcpy(&names, &bytes[e.e_shoff + e.e_shstrndx * sizeof(s)], sizeof(s));
		if (!strcmp(&bytes[names.sh_offset + s.sh_name], ".note.gnu.build-id"))
			return bytes.substr(s.sh_offset + 16, s.sh_size - 16);
	}
	return "";
}

TEST(MappedElf, SymbolsAreWhereTheLoaderFindsThem)
{
	const std::vector<Loaded> all = loaded();
	const Loaded &libc = library(all, "libc.so");
	void *handle = dlopen(libc.name.c_str(), RTLD_NOW | RTLD_NOLOAD);
	const char *names[] = { "malloc",  "printf", "qsort", "stdout",
				"environ", "fork",   "read",  "pthread_create" };

	ASSERT_NE(handle, nullptr);
	for (const char *name : names)
		EXPECT_EQ(mt_elf_symbol(&libc.elf, name), uintptr_t(dlsym(handle, name))) << name;
	EXPECT_EQ(mt_elf_symbol(&libc.elf, "memtrace_no_such_symbol"), 0u);
	EXPECT_EQ(mt_elf_symbol(&library(all, "libstdc++").elf, "malloc"), 0u)
		<< "undefined there, defined elsewhere";
	dlclose(handle);
}

TEST(MappedElf, BuildIdsEqualThoseOfTheFiles)
{
	size_t seen = 0;

	for (const Loaded &l : loaded()) {
		if (l.name.empty() || l.name[0] != '/')
			continue;
		EXPECT_EQ(std::string(reinterpret_cast<const char *>(l.elf.build_id),
				      l.elf.build_id_bytes),
			  build_id_of_file(l.name))
			<< l.name;
		seen += l.elf.build_id_bytes > 0;
	}
	EXPECT_GT(seen, 0u);
}

TEST(MappedElf, UnwindTablesLieInTheModule)
{
	for (const Loaded &l : loaded()) {
		ASSERT_NE(l.elf.cfi.hdr, nullptr) << l.name;
		EXPECT_GE(uintptr_t(l.elf.cfi.hdr), l.elf.start);
		EXPECT_LE(uintptr_t(l.elf.cfi.hdr_end), l.elf.end);
		EXPECT_GE(uintptr_t(l.elf.cfi.low), l.elf.start);
		EXPECT_LE(uintptr_t(l.elf.cfi.high), l.elf.end);
	}
}

/* A file in memory, laid out as the loader would, then damaged: results may be wrong, reads not. */
TEST(MappedElf, DamagedHeadersAreHarmless)
{
	const std::vector<Loaded> all = loaded();
	const Loaded &model = library(all, "libgcc_s");
	size_t size = (model.elf.end - model.elf.start + 4095) & ~size_t(4095), count = 0;
	auto *map = static_cast<uint8_t *>(mmap(nullptr, size + 4096, PROT_READ | PROT_WRITE,
						MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	const ElfW(Phdr) *headers = mt_elf_headers(model.elf.start, model.elf.end, &count);
	std::vector<ElfW(Phdr)> good, bad;
	std::mt19937 random(5);
	size_t found = 0;

	ASSERT_NE(map, MAP_FAILED);
	ASSERT_NE(headers, nullptr);
	mprotect(map + size, 4096, PROT_NONE);
	good.assign(headers, headers + count);
	for (const ElfW(Phdr) & p : good)
		if (p.p_type == PT_LOAD)
			memcpy(map + p.p_vaddr,
			       reinterpret_cast<void *>(model.elf.start + p.p_vaddr), p.p_filesz);
	/* The loader has made addresses of the offsets in there: back to offsets. */
	for (const ElfW(Phdr) & p : good)
		if (p.p_type == PT_DYNAMIC)
			for (auto *d = reinterpret_cast<ElfW(Dyn) *>(map + p.p_vaddr); d->d_tag;
			     d++)
				if (d->d_un.d_ptr >= model.elf.start &&
				    d->d_un.d_ptr < model.elf.end)
					d->d_un.d_ptr -= model.elf.bias;
	for (int i = 0; i < 20000; i++) {
		size_t at = random() % size;
		uint8_t before = map[at];
		mt_elf elf;

		map[at] = uint8_t(random());

		bad = good;
		for (unsigned n = random() % 3; n; n--) {
			ElfW(Phdr) &p = bad[random() % bad.size()];

			if (p.p_type == PT_LOAD) /* these are what the kernel mapped: true */
				continue;
			(random() % 2 ? p.p_vaddr : p.p_memsz) = random() % 3 ? random() % size
									      : random();
		}
		if (mt_elf_read(&elf, uintptr_t(map), bad.data(), bad.size()) == 0) {
			found += mt_elf_symbol(&elf, "_Unwind_Resume") != 0;
			mt_cfi_rule(&elf.cfi, uintptr_t(map) + random() % size, 0);
		}
		map[at] = before;
	}
	EXPECT_GT(found, 1000u) << "the control: undamaged ones are read";
	EXPECT_EQ(mt_elf_headers(uintptr_t(map) + 8, uintptr_t(map) + size, &count), nullptr);
	munmap(map, size + 4096);
}

TEST(Modules, EveryLoadedFileIsWrittenWithItsPath)
{
	char exe[PATH_MAX], *self = realpath("/proc/self/exe", exe);
	std::set<std::string> paths;

	referee::init_once();
	for (const auto &entry : Dictionary::all().path)
		paths.insert(entry.second);
	ASSERT_NE(self, nullptr);
	EXPECT_TRUE(paths.count(self));
	for (const Loaded &l : loaded())
		EXPECT_TRUE(l.name[0] != '/' || strstr(l.name.c_str(), "stack_plugin") ||
			    strstr(l.name.c_str(), "libunwind") || strstr(l.name.c_str(), "lzma") ||
			    paths.count(l.name))
			<< l.name; /* the exceptions may have come after the scan */
}

TEST(Modules, AddressesFindTheirModule)
{
	Sink sink;
	const mt_module *m;
	uint32_t index;

	referee::init_once();
	index = mt_module_at(&sink.t, uintptr_t(&qsort));
	ASSERT_NE(index, 0u);
	m = mt_module_get(index);
	EXPECT_LE(m->elf.start, uintptr_t(dlsym(RTLD_DEFAULT, "qsort")));
	EXPECT_EQ(mt_module_at(&sink.t, m->elf.start), mt_module_at(&sink.t, m->elf.end - 1));
	EXPECT_TRUE(mt_module_holds(index, m->elf.start));
	EXPECT_EQ(mt_module_at(&sink.t, uintptr_t(&sink)), 0u) << "a stack is no module";
	EXPECT_EQ(mt_module_at(&sink.t, 16), 0u);
}

} // namespace
