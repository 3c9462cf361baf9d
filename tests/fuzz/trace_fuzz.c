/*
 * Any bytes as a trace: through the reader, the merge and the model. Built with libFuzzer by
 * `clang -fsanitize=fuzzer,address`, or with replay.c to run files through it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The numbers a report is made of must agree with each other whatever the bytes are. */
static void check(const struct model *m)
{
	for (size_t i = 0; i < m->use_count; i++)
		if (m->uses[i].site >= m->site_count || m->uses[i].process >= m->process_count)
			abort();
	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];

		if (p->id != i || (p->parent != NO_ID && p->parent >= i) || !p->role ||
		    !p->command || (!m->restricted && p->live_count > p->allocations))
			abort();
	}
	for (size_t i = 1; i < m->native_count; i++)
		if (m->native[i].parent >= i)
			abort();
	for (size_t i = 1; i < m->python_count; i++)
		if (m->python[i].parent >= i ||
		    (m->python[i].code != NO_ID && m->python[i].code >= m->code_count))
			abort();
}

/*
 * Chunk headers carry a check that random changes never meet; so that the fuzzer gets past it, the
 * first word of each unit that starts with the magic is believed and the header made good.
 */
static void repair(uint8_t *data, size_t size)
{
	for (size_t at = MT_HEADER_BYTES; at + sizeof(struct mt_chunk) <= size;
	     at += MT_UNIT_BYTES) {
		struct mt_chunk chunk;

		memcpy(&chunk, data + at, sizeof(chunk));
		if (chunk.magic != MT_CHUNK_MAGIC)
			continue;
		chunk.self = at;
		chunk.proc &= 15;
		chunk.stream &= 7;
		chunk.check = mt_chunk_check(&chunk);
		memcpy(data + at, &chunk, sizeof(chunk));
	}
	if (size >= MT_HEADER_BYTES)
		memcpy(data, MT_FILE_MAGIC, 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct pipeline_options none;
	struct pipeline_options opt = none;
	struct pipeline_report rep;
	uint8_t *copy = malloc(size + 1);
	struct model *m;

	memcpy(copy, data, size);
	repair(copy, size);
	if (size && data[size - 1] & 1) {
		opt.from = "0.0000001";
		opt.to = "@phase";
	}
	m = pipeline_run_buffer(copy, size, "fuzz", &opt, &rep);
	if (m)
		check(m);
	model_free(m);
	pipeline_report_release(&rep);
	free(copy);
	return 0;
}
