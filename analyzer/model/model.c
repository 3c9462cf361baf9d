/*
 * What can be asked of a finished model, and its end. See model.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

const char *process_fact(const struct model *m, const struct process *p, const char *key)
{
	for (;;) {
		for (char **f = p->facts; f && f[0] && f[1]; f += 2)
			if (!strcmp(f[0], key))
				return f[1];
		if (p->parent >= m->process_count || p->parent >= p->id)
			return NULL;
		p = &m->processes[p->parent];
	}
}

static void process_release(struct process *p)
{
	free(p->command);
	free(p->worker.loader);
	free(p->samples);
	gpu_process_free(p->gpu);
	free(p->backing);
	process_cow_free(p->cow);
	free(p->pss);
	for (size_t i = 0; i < p->phase_count; i++)
		free(p->phases[i].name);
	free(p->phases);
	free(p->phase_sites);
	if (p->resident_last != p->resident_most)
		resident_free(p->resident_last);
	resident_free(p->resident_most);
	for (size_t i = 0; i < p->thread_count; i++)
		free(p->threads[i].name);
	free(p->threads);
	for (size_t i = 0; i < p->child_count; i++)
		free(p->children[i].path);
	free(p->children);
	for (char **f = p->facts; f && *f; f++)
		free(*f);
	free(p->facts);
}

void model_free(struct model *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->trace_count; i++) {
		free(m->traces[i].path);
		free(m->traces[i].host);
	}
	for (size_t i = 0; i < m->process_count; i++)
		process_release(&m->processes[i]);
	for (size_t i = 0; i < m->module_count; i++)
		free(m->modules[i].path);
	for (size_t i = 0; i < m->code_count; i++) {
		free(m->codes[i].filename);
		free(m->codes[i].name);
		free(m->codes[i].lines);
	}
	for (size_t i = 0; i < m->mark_count; i++)
		free(m->marks[i].label);
	for (size_t i = 0; i < m->note_count; i++)
		free(m->notes[i]);
	for (size_t i = 0; i < m->use_count; i++)
		free(m->uses[i].cohorts);
	arena_release(&m->arena);
	free(m->traces);
	free(m->processes);
	free(m->sites);
	free(m->uses);
	free(m->shm);
	free(m->shm_uses);
	free(m->native);
	free(m->python);
	free(m->modules);
	free(m->codes);
	free(m->marks);
	free(m->notes);
	free(m);
}
