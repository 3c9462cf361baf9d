/*
 * What stands out in a run, as sentences. Rules collect findings; findings.c puts the most severe
 * and largest first and writes the section.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_FINDINGS_H
#define MEMTRACE_ANALYZER_FINDINGS_H

#include "analysis/analysis.h"
#include "analysis/stack.h"
#include "util/strbuf.h"
#include "util/vec.h"

enum severity { SEVERITY_INFO, SEVERITY_WARNING, SEVERITY_CRITICAL };

/* A number or text that the finding rests on. Several with one key become a list. */
struct evidence {
	const char *key; /* static */
	enum { EVIDENCE_INT, EVIDENCE_FLOAT, EVIDENCE_TEXT, EVIDENCE_ITEM } type;
	uint64_t integer;
	double number;
	char *text;
};

struct finding {
	const char *kind; /* static; a kind of the report's list */
	enum severity severity;
	struct strbuf title, detail, advice;
	uint64_t bytes;
	bool has_bytes;
	uint32_t site; /* NO_ID: none */
	VEC(uint32_t) processes;
	VEC(struct evidence) evidence;
};

struct findings {
	struct analysis_input *in;
	VEC(struct finding) list;
};

/* A new, empty finding. Valid until the next one is made. */
struct finding *finding_new(struct findings *all, const char *kind, enum severity severity);
void finding_bytes(struct finding *f, uint64_t bytes);
void finding_process(struct finding *f, uint32_t process); /* each is kept once */
void finding_int(struct finding *f, const char *key, uint64_t v);
void finding_float(struct finding *f, const char *key, double v);
void finding_text(struct finding *f, const char *key, const char *v);
void finding_item(struct finding *f, const char *key, const char *v); /* of a list of texts */

/* "main (pid 3)", "dataloader-worker 0 (pid 5) and 3 others" */
void finding_processes_add(struct strbuf *sb, const struct model *m, const uint32_t *ids, size_t n);

void size_add(struct strbuf *sb, uint64_t bytes); /* "48.0 KiB" */

/* "train.py:42 in train, through leaky_normalise (leak.c:17)" */
void place_add(struct strbuf *sb, const struct stack *st);

/* The rules. */
void find_leaks(struct findings *all); /* findings_leak.c */
void find_python_growth(struct findings *all); /* findings_python.c */
void find_not_released(struct findings *all); /* phases.c */
void find_churn(struct findings *all); /* findings_churn.c */
void find_gpu_fragmentation(struct findings *all); /* findings_gpu.c */
void find_gpu_leak(struct findings *all); /* findings_gpu.c */
void find_pinned_growth(struct findings *all); /* findings_gpu.c */
void find_cow(struct findings *all); /* findings_cow.c */
void find_eager(struct findings *all); /* findings_eager.c */
void find_killed(struct findings *all); /* findings_process.c */
void find_uncovered(struct findings *all); /* findings_process.c */
void find_fragmentation(struct findings *all); /* findings_fragmentation.c */
void find_older(struct findings *all); /* before.c */
void find_oom_risk(struct findings *all); /* findings_process.c */
void find_shm(struct findings *all); /* findings_shm.c */
void find_worker_copies(struct findings *all); /* findings_workers.c */
void find_orphans(struct findings *all); /* findings_workers.c */

#endif
