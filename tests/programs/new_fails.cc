// operator new that fails: "plain" for an impossible size, "handler" with a handler that first gives
// memory back and then takes itself away. Prints what it saw. Blocks have sizes that nothing else
// asks for: one of 10007 bytes and one of 5003 with the handler, three of 1009, all freed.
//
// SPDX-License-Identifier: Apache-2.0
#include <new>

#include "truth.h"

namespace
{

int calls;
void *reserve;

void handler()
{
	dprintf(1, "handler\n");
	if (++calls == 1)
		::operator delete(reserve);
	else
		std::set_new_handler(nullptr);
}

} // namespace

int main(int argc, char **argv)
{
	size_t impossible = (size_t)1 << 62;

	if (argc > 1 && !strcmp(argv[1], "handler")) {
		reserve = truth_keep(::operator new(10007));
		std::set_new_handler(handler);
		void *p = truth_keep(::operator new(5003));
		::operator delete(p);
	}
	for (int i = 0; i < 3; i++) {
		try {
			truth_keep(::operator new(impossible));
			dprintf(1, "no failure\n");
		} catch (const std::bad_alloc &) {
			dprintf(1, "bad_alloc after %d calls\n", calls);
		}
		void *p = truth_keep(::operator new(1009)); // the guard is not left behind
		::operator delete(p);
	}
	dprintf(1, "nothrow %p\n", truth_keep(::operator new(impossible, std::nothrow)));
	return 0;
}
