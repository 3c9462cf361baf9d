// A library that Python loads, whose functions throw and catch: what a throw costs there. The shim
// must not change whose unwinder it binds to (libgcc's), nor therefore its price.
//
// SPDX-License-Identifier: Apache-2.0
#include <ctime>

namespace
{

struct Thrown {
	long value;
};

// Not inlined and no tail call: each level is a frame that is unwound.
__attribute__((noinline)) long down(int depth, long value)
{
	if (!depth)
		throw Thrown{ value };
	long got = down(depth - 1, value);

	asm volatile("" : "+r"(got));
	return got + 1;
}

double seconds()
{
	timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

} // namespace

// ns of CPU time for one throw through `depth` frames, over `count` of them.
extern "C" double throws_cost(int depth, long count)
{
	long sum = 0;
	double began = seconds();

	for (long i = 0; i < count; i++) {
		try {
			sum += down(depth, i);
		} catch (const Thrown &t) {
			sum += t.value;
		}
	}
	return sum < 0 ? -1 : (seconds() - began) * 1e9 / double(count);
}
