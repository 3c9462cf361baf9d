// operator new and delete in all their forms, strdup, getline: everything that ends in malloc
// below the C++ and C libraries. Arguments: rounds.
//
// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "truth.h"

namespace
{

struct alignas(128) Wide {
	char bytes[256];
};

template <typename T> T *counted(T *p, size_t size)
{
	truth_allocated(size);
	return static_cast<T *>(truth_keep(p));
}

template <typename T> T *given(T *p, size_t size)
{
	truth_freed(size);
	return static_cast<T *>(truth_keep(p));
}

void news()
{
	delete given(counted(new int(3), sizeof(int)), sizeof(int));
	delete[] given(counted(new int[10], 40), 40);
	delete given(counted(new Wide, sizeof(Wide)), sizeof(Wide));
	delete given(counted(new (std::nothrow) long(1), sizeof(long)), sizeof(long));
	::operator delete(given(counted(::operator new(77), 77), 77));
	::operator delete(given(counted(::operator new(64, std::align_val_t(64)), 64), 64),
			  std::align_val_t(64));
}

void containers()
{
	std::vector<long> v;

	v.reserve(100);
	truth_allocated(800);
	truth_keep(v.data());
	v.reserve(200); // the new block first, then the old one goes
	truth_allocated(1600);
	truth_freed(800);
	truth_freed(1600);
	auto s = std::make_unique<std::string>(200, 'x');
	truth_allocated(sizeof(std::string));
	truth_allocated(201);
	truth_keep(s.get());
	truth_freed(sizeof(std::string));
	truth_freed(201);
}

} // namespace

int main(int argc, char **argv)
{
	long rounds = truth_argument(argc, argv, 1, 20);

	truth_begin();
	for (long i = 0; i < rounds; i++)
		news();
	for (long i = 0; i < rounds; i++)
		containers();
	truth_end();
	return 0;
}
