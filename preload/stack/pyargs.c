/*
 * What a function's arguments say of the process: PyTorch tells a DataLoader's worker its number, and
 * a process of torch.multiprocessing.spawn its rank, by arguments and by nothing else that is seen
 * from outside. They are read once, from the frame of the first stack in which the function is met,
 * and written down as facts. A function is known by its file and the names of its arguments.
 *
 * All is read with care, type by type: a frame that looks otherwise tells nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "out/stream.h"
#include "stack/bounds.h"
#include "stack/python.h"
#include "sys/fmt.h"

enum { ARGUMENTS_MAX = 32, NAME_MAX = 24 };

static const struct wanted {
	const char *file; /* its end */
	int place; /* of the argument; -1: anywhere */
	const char *name, *fact;
} wanted[] = {
	{ "torch/utils/data/_utils/worker.py", -1, "worker_id", "worker" },
	{ "torch/utils/data/_utils/worker.py", -1, "num_workers", "workers" },
	{ "torch/multiprocessing/spawn.py", 1, "i", "spawn_rank" },
};

#define WANTED (sizeof(wanted) / sizeof(wanted[0]))

uintptr_t mt_pyargs_code;

static int ends_with(const char *text, size_t length, const char *end)
{
	size_t n = strlen(end);

	return length >= n && !memcmp(text + length - n, end, n);
}

void mt_pyargs_met(uintptr_t code, const char *file, size_t length)
{
	if (!mt_python_layout.names || !mt_python_layout.locals)
		return;
	for (size_t i = 0; i < WANTED; i++)
		if (ends_with(file, length, wanted[i].file))
			__atomic_store_n(&mt_pyargs_code, code, __ATOMIC_RELAXED);
}

static uintptr_t word_at(uintptr_t address)
{
	return address && address % 8 == 0 && mt_bounds_readable(address, 8)
		       ? *(const uintptr_t *)address
		       : 0;
}

static int is_of_type(uintptr_t object, const char *name)
{
	const struct mt_python_layout *l = &mt_python_layout;
	uintptr_t type = word_at(object + l->object_type);
	uintptr_t text = type ? word_at(type + l->type_name) : 0;

	return text && mt_bounds_readable(text, 8) && mt_same((const char *)text, name);
}

/* Is it that str? Names of arguments are short and ASCII. */
static int is_text(uintptr_t str, const char *text)
{
	const struct mt_python_layout *l = &mt_python_layout;
	size_t length = strlen(text);

	return is_of_type(str, "str") && mt_bounds_readable(str, l->ascii + NAME_MAX) &&
	       mt_python_word(str, l->str_length) == length &&
	       !memcmp((const char *)str + l->ascii, text, length);
}

/* The value of a small int that is not negative; -1: it is none. */
static int64_t small_int(uintptr_t object)
{
	const struct mt_python_layout *l = &mt_python_layout;
	uintptr_t size;

	if (!is_of_type(object, "int") || !mt_bounds_readable(object, l->object_size + 16u))
		return -1;
	size = mt_python_word(object, l->object_size);
	if (l->minor >=
	    12) /* sign in two bits: 0 positive, 1 zero, 2 negative; digits from bit 3 */
		size = (size & 3) == 1 ? 0 : (size & 3) == 0 ? size >> 3 : 2;
	if (size > 1)
		return -1;
	return size ? mt_python_int(object, l->object_size + 8) : 0;
}

static void tell(struct mt_thread *t, const char *fact, int64_t value)
{
	char text[24];
	size_t n = mt_fmt(text, sizeof(text), "%lu", (uint64_t)value);

	MT_EMIT(t, fact, .key = { fact, (uint32_t)strlen(fact) }, .value = { text, (uint32_t)n });
}

void mt_pyargs_read(struct mt_thread *t, uintptr_t frame, uintptr_t code)
{
	const struct mt_python_layout *l = &mt_python_layout;
	/* From 3.14 on a tuple keeps its hash ahead of its items. */
	size_t items = l->object_size + (l->minor >= 14 ? 16u : 8u);
	uintptr_t names = word_at(code + l->names), count;

	__atomic_store_n(&mt_pyargs_code, 0, __ATOMIC_RELAXED);
	if (!is_of_type(names, "tuple"))
		return;
	count = word_at(names + l->object_size);
	for (size_t i = 0; i < count && i < ARGUMENTS_MAX; i++) {
		uintptr_t name = word_at(names + items + i * 8);

		for (size_t k = 0; k < WANTED; k++) {
			int64_t value;

			if ((wanted[k].place >= 0 && (size_t)wanted[k].place != i) ||
			    !is_text(name, wanted[k].name))
				continue;
			value = small_int(word_at(frame + l->locals + i * 8) & MT_PYTHON_UNTAG);
			if (value >= 0)
				tell(t, wanted[k].fact, value);
		}
	}
}
