// The test program itself as a module: its path, build-id, and addresses as a trace has them.
// SPDX-License-Identifier: Apache-2.0
#ifndef MEMTRACE_TESTS_OWN_MODULE_H
#define MEMTRACE_TESTS_OWN_MODULE_H

#include <elf.h>
#include <limits.h>
#include <link.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

struct OwnModule {
	std::string path;
	std::vector<uint8_t> build_id;
	uintptr_t bias = 0;

	OwnModule()
	{
		char buf[PATH_MAX];
		ssize_t n = readlink("/proc/self/exe", buf, sizeof(buf));

		path.assign(buf, n > 0 ? static_cast<size_t>(n) : 0);
		dl_iterate_phdr(visit, this);
	}

	// A code address as an ELF virtual address.
	template <typename T> uint64_t address(T *function) const
	{
		return reinterpret_cast<uintptr_t>(function) - bias;
	}

      private:
	static int visit(dl_phdr_info *info, size_t, void *arg)
	{
		OwnModule *self = static_cast<OwnModule *>(arg);

		self->bias = info->dlpi_addr;
		for (int i = 0; i < info->dlpi_phnum; i++)
			if (info->dlpi_phdr[i].p_type == PT_NOTE)
				self->read_notes(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr,
						 info->dlpi_phdr[i].p_memsz);
		return 1; // the program itself is the first
	}

	void read_notes(uintptr_t at, size_t size)
	{
		uintptr_t end = at + size;

		while (at + sizeof(ElfW(Nhdr)) <= end) {
			const ElfW(Nhdr) *note = reinterpret_cast<const ElfW(Nhdr) *>(at);
			const char *name = reinterpret_cast<const char *>(note + 1);
			const uint8_t *data = reinterpret_cast<const uint8_t *>(name) +
					      ((note->n_namesz + 3) & ~3u);

			if (note->n_type == NT_GNU_BUILD_ID && !strcmp(name, "GNU"))
				build_id.assign(data, data + note->n_descsz);
			at = reinterpret_cast<uintptr_t>(data) + ((note->n_descsz + 3) & ~3u);
		}
	}
};

#endif
