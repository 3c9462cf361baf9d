/*
 * What several sections print the same way.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_COMMON_H
#define MEMTRACE_ANALYZER_COMMON_H

#include "model/model.h"
#include "result/result.h"
#include "util/strbuf.h"

extern const char *const kind_names[MT_KINDS]; /* the report's `kind` */

double seconds(int64_t ns);
/* When the first of the traces began, realtime ns; 0: no trace. */
int64_t first_start(const struct model *m);
/* A time of a process, since the start of its own trace, as ns or seconds since the first one's. */
int64_t process_time(const struct model *m, const struct process *p, int64_t ns);
double process_seconds(const struct model *m, const struct process *p, int64_t ns);

/* Counts above 2^63-1 print as that. */
void put_count(struct result *doc, struct rvalue *object, const char *key, uint64_t v);
/* The same, and KEY_low and KEY_high, its 95 % interval. e NULL: it is exact. step: see sampled.h. */
void put_estimate(struct result *doc, struct rvalue *object, const char *key, uint64_t v,
		  const struct estimate *e, double step);
/* The same for a peak: the highest of many estimates is rather too high, so its low end is what was
 * really recorded at one time. s NULL: it is exact. */
void put_peak(struct result *doc, struct rvalue *object, const char *key, uint64_t v,
	      const struct sampled *s);
/* Of a struct sampled *s or NULL: what put_estimate wants for a member such as live.bytes. */
#define ESTIMATE(s, member) ((s) ? &(s)->member : NULL)
/* "at_peak_bytes"; of samples nobody knows what they add up to at one moment: null. */
void put_at_peak(struct result *doc, struct rvalue *object, uint64_t v, const struct sampled *s);
/* The same, and null for 0: it was not measured. */
void put_measured(struct result *doc, struct rvalue *object, const char *key, uint64_t v);
/* null for NO_ID */
void put_id(struct result *doc, struct rvalue *object, const char *key, uint32_t id);
/* "by_kind": an object with the kinds that occur. sampled NULL: all is exact. */
void put_kinds(struct result *doc, struct rvalue *object, const struct kind_totals *kinds,
	       const struct process_sampled *sampled);

/* A value of struct mt_ev_sample is one more than measured. False: it was not measured. */
bool sample_value(uint64_t stored, uint64_t *value);

/* "kind" and "code" of how it ended. */
void put_end_members(struct result *doc, struct rvalue *end, const struct process *p);

/* "main (pid 12)", "dataloader-worker 0 (pid 14)", "rank 1 (pid 3)" */
void process_name_add(struct strbuf *sb, const struct process *p);

/* The limit on the tree's memory, and how much of it was used at most. */
struct capacity {
	uint64_t limit; /* 0: not known */
	bool is_cgroup; /* else the machine's memory */
	uint64_t peak; /* highest use measured */
	bool has_peak;
};
struct capacity capacity_of(const struct model *m);

#endif
